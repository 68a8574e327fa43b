#!/usr/bin/env bash
echo "sim: being written" >&2; exit 1
