#!/usr/bin/env bash
# Makes, in the current folder, what relay.yaml needs and nobody has yet: secrets/,
# a file for each, and .env. What is there already stays.
set -euo pipefail
umask 022             # compose mounts the files as they are, and the relay is another user;
mkdir -pm 700 secrets # the folder keeps everybody else out

# secret NAME COMMAND…: what the command prints, unless there is such a secret.
secret() {
  [ -e "secrets/$1" ] || { value=$("${@:2}") && printf '%s\n' "$value" >"secrets/$1"; }
}
secret admin_token openssl rand -hex 32
secret storage_key openssl rand -base64 32
secret core_secret echo "whsec_$(openssl rand -base64 32)"
secret grafana_password openssl rand -hex 16
secret redis_url echo redis://redis:6379/0
if [ ! -e secrets/vapid_private_key ]; then
  pair=$(go -C "$(dirname "$0")" run ../../cmd/relay vapid)
  sed -n 's/.*public_key: "\(.*\)"/RELAY_VAPID_PUBLIC_KEY=\1/p' <<<"$pair" >.env
  sed -n 's/.*private_key: "\(.*\)"/\1/p' <<<"$pair" >secrets/vapid_private_key
fi
[ -e secrets/acme_secret ] || echo "now put the issuer's Secret Key into secrets/acme_secret"
