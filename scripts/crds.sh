#!/usr/bin/env bash
# Prints the files that hold the CRDs of Istio, the Prometheus operator and the Gateway API, one a line, out of their Go
# modules; fails where there is no Go or no module. Google Managed Prometheus and the inference extension publish theirs
# in no module that can be had by name.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
have go || exit 1

folder() { go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'; }

istio=$(folder "istio.io/api@v$ISTIO_API_VERSION")
operator=$(folder "github.com/prometheus-operator/prometheus-operator@v$PROMETHEUS_OPERATOR_VERSION")
gateway=$(folder "sigs.k8s.io/gateway-api@v$GATEWAY_API_VERSION")
ls "$istio/kubernetes/customresourcedefinitions.gen.yaml" \
    "$operator"/example/prometheus-operator-crd/monitoring.coreos.com_{servicemonitors,podmonitors,prometheusrules}.yaml \
    "$gateway/config/crd/standard/gateway.networking.k8s.io_gateways.yaml"
