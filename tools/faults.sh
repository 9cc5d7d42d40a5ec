#!/bin/sh
# Prints the table of docs/reliability.md from the rows that the tests of tests/faults left in a folder.
set -eu
folder=${1:?usage: faults.sh FOLDER}
echo '| group | test | tried | held | measured |'
echo '| --- | --- | ---: | ---: | --- |'
sort "$folder"/*
awk -F'|' '{ tried += $4; held += $5 } END { print "| **all** | | **" tried "** | **" held "** | |" }' "$folder"/*
