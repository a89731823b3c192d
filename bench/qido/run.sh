#!/usr/bin/env bash
# Measures searches: in an index of a million synthetic studies, which takes some ten minutes to fill and 2 GB of disk, and beside Orthanc with 200
# studies. QIDO_STUDIES=n for another number; QIDO_DIR=folder keeps the index for the next run.
set -euo pipefail
cd "$(dirname "$0")/../.."
export QIDO_STUDIES=${QIDO_STUDIES:-1000000}
go test ./pipeline/archive -run '^$' -bench '^BenchmarkMillion$' -benchtime "${QIDO_TIMES:-300x}" -timeout 2h -v | grep -v '^BenchmarkMillion[^ ]*$'
go test ./dicomweb -run '^$' -bench '^BenchmarkSearchBesideOrthanc$' -benchtime 100x
