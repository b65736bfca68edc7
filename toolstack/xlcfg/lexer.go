// SPDX-License-Identifier: Apache-2.0

package xlcfg

import (
	"fmt"
	"strings"
)

type kind int

const (
	tokEOF kind = iota
	tokNewline
	tokIdent
	tokNumber
	tokString
	tokPunct // one of , [ ] = ; and +=
	tokBad   // text says what is wrong
)

type token struct {
	kind kind
	text string
	line int
}

func (t token) String() string {
	switch t.kind {
	case tokEOF:
		return "end of file"
	case tokNewline:
		return "end of line"
	case tokString:
		return fmt.Sprintf("string %.40q", t.text)
	}
	return fmt.Sprintf("%.40q", t.text)
}

type lexer struct {
	src  string
	pos  int
	line int
}

func isLower(c byte) bool { return c >= 'a' && c <= 'z' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func (l *lexer) next() token {
	for l.pos < len(l.src) && (l.src[l.pos] == ' ' || l.src[l.pos] == '\t') {
		l.pos++
	}
	if l.pos == len(l.src) {
		return token{tokEOF, "", l.line}
	}
	c, line := l.src[l.pos], l.line
	switch {
	case c == '#':
		if i := strings.IndexByte(l.src[l.pos:], '\n'); i >= 0 {
			l.pos += i
			return l.next()
		}
		l.pos = len(l.src)
		return token{tokEOF, "", line}
	case c == '\n':
		l.pos++
		l.line++
		return token{tokNewline, "", line}
	case isLower(c):
		return token{tokIdent, l.span(func(c byte) bool { return isLower(c) || isDigit(c) || c == '.' || c == '_' }), line}
	case isDigit(c):
		return token{tokNumber, l.span(func(c byte) bool { return isDigit(c) || c >= 'a' && c <= 'f' || c == 'x' }), line}
	case c == '"' || c == '\'':
		return l.quoted(c)
	case strings.IndexByte(",[]=;", c) >= 0:
		l.pos++
		return token{tokPunct, string(c), line}
	case strings.HasPrefix(l.src[l.pos:], "+="):
		l.pos += 2
		return token{tokPunct, "+=", line}
	}
	bad := l.span(func(c byte) bool { return c != ' ' && c != '\t' && c != '\n' })
	return token{tokBad, fmt.Sprintf("%.40q is not part of a setting; strings need quotes", bad), line}
}

func (l *lexer) span(in func(byte) bool) string {
	start := l.pos
	for l.pos < len(l.src) && in(l.src[l.pos]) {
		l.pos++
	}
	return l.src[start:l.pos]
}

// escapes are those of xlu__cfgl_dequote().
var escapes = map[byte]byte{
	'"': '"', '\'': '\'', '\\': '\\',
	'a': '\a', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v',
}

// quoted reads a string.  A bad escape spoils it, but it is read to its end.
func (l *lexer) quoted(quote byte) token {
	var b strings.Builder
	bad := ""
	for i := l.pos + 1; i < len(l.src) && l.src[i] != '\n'; i++ {
		switch c := l.src[i]; {
		case c == quote:
			l.pos = i + 1
			if bad != "" {
				return token{tokBad, bad, l.line}
			}
			return token{tokString, b.String(), l.line}
		case c != '\\':
			b.WriteByte(c)
		case i+1 < len(l.src) && l.src[i+1] != '\n':
			i++
			if e, ok := escapes[l.src[i]]; ok {
				b.WriteByte(e)
			} else {
				bad = fmt.Sprintf(`escape \%c is not one of \" \' \\ \a \b \f \n \r \t \v`, l.src[i])
			}
		}
	}
	if i := strings.IndexByte(l.src[l.pos:], '\n'); i >= 0 {
		l.pos += i
	} else {
		l.pos = len(l.src)
	}
	return token{tokBad, "string has no closing quote on its line", l.line}
}
