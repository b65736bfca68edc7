// SPDX-License-Identifier: Apache-2.0

package xlcfg

import (
	"errors"
	"fmt"
	"os"
)

// Value is a string, which a number is too, or a list.
type Value struct {
	Line   int
	IsList bool
	Text   string
	List   []Value
}

// Strings is a list whose elements are all strings; a string is a list of one,
// as xlu_cfg_get_list_as_string_list() has it.
func (v Value) Strings() ([]string, bool) {
	if !v.IsList {
		return []string{v.Text}, true
	}
	out := make([]string, 0, len(v.List))
	for _, e := range v.List {
		if e.IsList {
			return nil, false
		}
		out = append(out, e.Text)
	}
	return out, true
}

// Setting is the value that one key has in the end.
type Setting struct {
	Key   string
	Line  int // of its last assignment or addition
	Value Value
}

// File is a parsed configuration file.
type File struct {
	Name     string
	Settings []Setting // in the order in which the keys first occur
}

// Get finds the setting of a key.
func (f *File) Get(key string) (Setting, bool) {
	for _, s := range f.Settings {
		if s.Key == key {
			return s, true
		}
	}
	return Setting{}, false
}

// Errorf makes an error about a line of the file.
func (f *File) Errorf(line int, format string, args ...any) error {
	return &Error{File: f.Name, Line: line, Reason: fmt.Sprintf(format, args...)}
}

// Error is an error at a place in a file.
type Error struct {
	File   string
	Line   int
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Reason) }

// maxSize and maxNesting are implementation limits; xl.cfg files are small.
const (
	maxSize    = 1 << 20
	maxNesting = 16
	maxErrors  = 50
)

// Load reads and parses a file.
func Load(name string) (*File, error) {
	src, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return Parse(name, src)
}

// Parse parses src.  The error holds all that is wrong with it, each an
// *Error with its line.
func Parse(name string, src []byte) (*File, error) {
	f := &File{Name: name}
	if len(src) > maxSize {
		return nil, f.Errorf(1, "file of %d bytes; at most %d", len(src), maxSize)
	}
	p := &parser{file: f, lex: lexer{src: string(src), line: 1}}
	p.advance()
	for p.tok.kind != tokEOF && len(p.errs) < maxErrors {
		p.statement()
	}
	if len(p.errs) != 0 {
		return nil, errors.Join(p.errs...)
	}
	return f, nil
}

type parser struct {
	file *File
	lex  lexer
	tok  token
	errs []error
}

func (p *parser) advance() { p.tok = p.lex.next() }

func (p *parser) is(punct string) bool { return p.tok.kind == tokPunct && p.tok.text == punct }

// fail notes an error at the present token and skips to the end of its line,
// the grammar's "error NEWLINE".
func (p *parser) fail(expected string) {
	reason := p.tok.text
	if p.tok.kind != tokBad {
		reason = fmt.Sprintf("expected %s, found %s", expected, p.tok)
	}
	p.errs = append(p.errs, p.file.Errorf(p.tok.line, "%s", reason))
	for p.tok.kind != tokNewline && p.tok.kind != tokEOF {
		p.advance()
	}
}

func (p *parser) statement() {
	if p.tok.kind == tokNewline || p.is(";") {
		p.advance()
		return
	}
	if p.tok.kind != tokIdent {
		p.fail("the name of a setting")
		return
	}
	key := p.tok.text
	p.advance()
	add := p.is("+=")
	if !add && !p.is("=") {
		p.fail("= or +=")
		return
	}
	p.advance()
	v, ok := p.value(0)
	if !ok {
		return
	}
	if p.tok.kind != tokNewline && p.tok.kind != tokEOF && !p.is(";") {
		p.fail("end of line or ;")
		return
	}
	p.store(key, add, v)
}

func (p *parser) value(depth int) (Value, bool) {
	v := Value{Line: p.tok.line}
	switch {
	case p.tok.kind == tokString || p.tok.kind == tokNumber:
		v.Text = p.tok.text
		p.advance()
		return v, true
	case p.is("[") && depth < maxNesting:
		v.IsList = true
		p.advance()
	default:
		p.fail("a string, a number or a list")
		return v, false
	}
	for {
		p.newlines()
		if p.is("]") {
			p.advance()
			return v, true
		}
		elem, ok := p.value(depth + 1)
		if !ok {
			return v, false
		}
		v.List = append(v.List, elem)
		p.newlines()
		switch {
		case p.is(","):
			p.advance()
		case !p.is("]"):
			p.fail(", or ]")
			return v, false
		}
	}
}

func (p *parser) newlines() {
	for p.tok.kind == tokNewline {
		p.advance()
	}
}

// store keeps the last assignment of a key; an addition joins strings or
// lists (xlu__cfg_set_store()).
func (p *parser) store(key string, add bool, v Value) {
	for i := range p.file.Settings {
		s := &p.file.Settings[i]
		if s.Key != key {
			continue
		}
		switch {
		case add && s.Value.IsList != v.IsList:
			p.errs = append(p.errs, p.file.Errorf(v.Line, "%s: cannot add a list to a string or a string to a list", key))
			return
		case add:
			v.List = append(s.Value.List, v.List...)
			v.Text = s.Value.Text + v.Text
		}
		s.Line, s.Value = v.Line, v
		return
	}
	p.file.Settings = append(p.file.Settings, Setting{key, v.Line, v})
}
