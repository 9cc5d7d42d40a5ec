#!/bin/sh
# Prints the table of docs/reliability.md from the rows that the tests of tests/faults left: in FOLDER those of
# a run as `make test` has it, in FOLDER-in-full those of `make faults`.
set -eu
folder=${1:?usage: faults.sh FOLDER}
rows=$(find "$folder" "$folder-in-full" -type f 2>/dev/null | sort)
[ -n "$rows" ] || { echo "nothing in $folder and $folder-in-full: run the tests of tests/faults first" >&2; exit 1; }
cat <<'END'
| group | test | in `make test` | in full | measured |
| --- | --- | ---: | ---: | --- |
END
# No file's name has a space.
# shellcheck disable=SC2086
awk -F' *[|] *' -v in_full="$folder-in-full/" '
    {
        group[$3] = $2
        if (index(FILENAME, in_full) == 1) {
            full[$3] = $5 " of " $4; tried += $4; held += $5; note[$3] = $6
        } else {
            some[$3] = $5 " of " $4; some_tried += $4; some_held += $5
            if (!($3 in note)) note[$3] = $6
        }
    }
    function of(list, test) { return test in list ? list[test] : "–" }
    END {
        for (test in group)
            printf "| %s | %s | %s | %s | %s |\n", group[test], test, of(some, test), of(full, test), note[test] | "sort"
        close("sort")
        printf "| **all** | | **%d of %d** | **%d of %d** | |\n", some_held, some_tried, held, tried
    }' $rows
