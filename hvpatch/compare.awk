# SPDX-License-Identifier: Apache-2.0
#
# Compares two outputs of listing.awk, function by function: same; line, if
# nothing but constants differs, and each by no more than the lines which the
# series adds to a file (__LINE__); differs; new; gone.
BEGIN { FS = "\t"; digits = "0123456789abcdef" }
function hex(s,    i, n) {
    n = 0
    for (i = 1; i <= length(s); i++)
        n = n * 16 + index(digits, substr(s, i, 1)) - 1
    return n
}
# The number of the first constant of an instruction, or -1.
function constant(s) {
    return match(s, /\$0x[0-9a-f]+/) ? hex(substr(s, RSTART + 3, RLENGTH - 3)) : -1
}
function lines_only(a, b,    x, y, n, i, by) {
    n = split(a, x, "; ")
    split(b, y, "; ")
    for (i = 1; i <= n; i++)
        if (x[i] != y[i]) {
            by = constant(y[i]) - constant(x[i])
            if (by < 1 || by > 200)
                return 0
        }
    return 1
}
NR == FNR           { code[$1] = $2; masked[$1] = $3; next }
                    { now[$1] = 1 }
!($1 in code)       { print "new", $1; next }
code[$1] == $2      { print "same", $1; next }
masked[$1] == $3 && lines_only(code[$1], $2) { print "line", $1; next }
                    { print "differs", $1 }
END { for (f in code) if (!(f in now)) print "gone", f }
