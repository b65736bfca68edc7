# SPDX-License-Identifier: Apache-2.0
#
# objdump -dr --no-show-raw-insn, each object preceded by "OBJECT name", to one
# line per function: object and function, tab, instructions, tab, the same with
# constants masked.
function flush() {
    if (fn != "") {
        masked = code
        gsub(/\$0x[0-9a-f]+/, "$N", masked)
        print obj " " fn "\t" code "\t" masked
    }
    fn = ""; code = ""
}
/^OBJECT / { flush(); obj = $2; next }
/^[0-9a-f]+ <.*>:$/ { flush(); fn = $2; gsub(/[<>:]/, "", fn); next }
fn == "" { next }
/^\t\t\t[0-9a-f]+: R_X86_64_/ {
    # A relocation: what it refers to, but not where that lies in its section.
    sub(/^\t\t\t[0-9a-f]+: /, "")
    gsub(/\t/, " ")
    if ($0 ~ /^R_X86_64_[0-9A-Z]+ \.[a-z]/)
        sub(/[+-]0x[0-9a-f]+$/, "")
    sub(/__func__\.[0-9]+/, "__func__")
    code = code "; " $0
    next
}
/^ *[0-9a-f]+:\t/ {
    sub(/^ *[0-9a-f]+:\t/, "")
    sub(/ *# [0-9a-f]+ <.*$/, "")                     # target of %rip
    if ($0 ~ /[0-9a-f]+ <[^>]*>$/) {                  # of a jump
        sub(/[0-9a-f]+ </, "<")
        # Out of the function: the relocation says where to.
        if (index($0, "<" fn "+") == 0 && index($0, "<" fn ">") == 0)
            sub(/<[^>]*>$/, "<>")
    }
    gsub(/[ \t]+/, " ")
    sub(/ $/, "")
    code = code "; " $0
}
END { flush() }
