#!/bin/sh
# Makes the certificates of this folder anew.  They are for tests alone: their keys are public.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

settings() { # extensions, one per line
  : >"$work/index"
  cat >"$work/ca.cnf" <<EOF
[ca]
default_ca=d
[d]
database=$work/index
new_certs_dir=$work
rand_serial=yes
default_md=sha256
policy=p
x509_extensions=e
[p]
commonName=supplied
[e]
subjectKeyIdentifier=hash
$1
EOF
}

sign() { # name, not before, not after, who signs
  name=$1 from=$2 to=$3
  shift 3
  openssl ca -batch -notext -config "$work/ca.cnf" -in "$work/$name.csr" -out "$work/$name.crt" \
    -startdate "$from" -enddate "$to" "$@"
}

request() { # name, common name
  key "$work/$1.key"
  openssl req -new -key "$work/$1.key" -subj "/CN=$2" -out "$work/$1.csr"
}

authority() { # name, common name
  request "$1" "$2"
  settings "basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign,cRLSign"
  sign "$1" 20200101000000Z 21200101000000Z -selfsign -keyfile "$work/$1.key"
  cp "$work/$1.crt" "$1.pem"
}

leaf() { # name, names, extended usage, not before, not after
  request "$1" "$1"
  settings "basicConstraints=CA:FALSE
authorityKeyIdentifier=keyid
subjectAltName=$2
extendedKeyUsage=$3"
  sign "$1" "$4" "$5" -cert ca.pem -keyfile "$work/ca.key"
  cat "$work/$1.key" "$work/$1.crt" >"$1.pem"
}

authority ca "Parapet test authority"
authority other_ca "Another test authority"
here=DNS:localhost,IP:127.0.0.1
leaf server $here serverAuth 20200101000000Z 21200101000000Z
leaf expired $here serverAuth 20200101000000Z 20210101000000Z
leaf wrong_name DNS:elsewhere.example serverAuth 20200101000000Z 21200101000000Z
leaf client DNS:client.example clientAuth 20200101000000Z 21200101000000Z
