#!/bin/sh
# Make the certificates of the cluster and put them into Kubernetes as secrets, one for each role.
#
#   docker/k8s/secrets.sh DIR [NAMESPACE]    certificates lie in DIR, with the authority's key
#   DRY_RUN=1 docker/k8s/secrets.sh DIR      prints the secrets instead
#
# The same again renews what will soon expire; then restart the pods, the scheduler's first. The
# names in the secrets are those of cert-manager, which can make them as well.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
[ $# -ge 1 ] || { echo "error: name the folder of the certificates" >&2 && exit 64; }
folder=$1 namespace=${2:-tilemap}
certificates=$(command -v tilemap-certificates || echo "$here/../certificates.py")

apply() {
    if [ -n "${DRY_RUN:-}" ]; then
        echo ---
        cat
    else
        kubectl apply --namespace "$namespace" -f -
    fi
}

case $certificates in
*.py) "${PYTHON:-python3}" "$certificates" "$folder" --host tilemap-scheduler localhost 127.0.0.1 >&2 ;;
*) "$certificates" "$folder" --host tilemap-scheduler localhost 127.0.0.1 >&2 ;;
esac
for role in scheduler worker client; do
    kubectl create secret generic "tilemap-tls-$role" --namespace "$namespace" \
        --dry-run=client --output yaml \
        --from-file=ca.crt="$folder/$role/ca.pem" \
        --from-file=tls.crt="$folder/$role/cert.pem" \
        --from-file=tls.key="$folder/$role/key.pem" | apply
done
