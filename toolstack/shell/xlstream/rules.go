// SPDX-License-Identifier: Apache-2.0

package xlstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// maxReasons bounds what is collected from one hostile document.
const maxReasons = 64

// checker collects every reason to refuse a document.
type checker struct{ errs []error }

func (c *checker) fail(where, format string, args ...any) {
	if len(c.errs) < maxReasons {
		c.errs = append(c.errs, fmt.Errorf("%s: %s", where, fmt.Sprintf(format, args...)))
	}
}

func (c *checker) err() error { return errors.Join(c.errs...) }

// rule judges the value of one key.
type rule func(c *checker, where string, v any)

// fields is the rule for an object: each key has to have its own rule.
func fields(rules map[string]rule) rule {
	return func(c *checker, where string, v any) {
		obj, ok := v.(*object)
		if !ok {
			c.fail(where, "expected an object")
			return
		}
		for _, m := range obj.members {
			key := join(where, m.key)
			r, known := rules[m.key]
			switch {
			case !known:
				c.fail(key, "unknown key")
			case m.val != nil:
				r(c, key, m.val)
			}
		}
	}
}

func join(where, key string) string {
	if len(key) > 64 {
		key = key[:64] + "..."
	}
	if where != "" {
		where += "."
	}
	return where + strconv.Quote(key)[1:len(strconv.Quote(key))-1]
}

func list(elem rule, most int) rule {
	return func(c *checker, where string, v any) {
		l, ok := v.([]any)
		if !ok || len(l) > most {
			c.fail(where, "expected a list of at most %d", most)
			return
		}
		for i, e := range l {
			elem(c, fmt.Sprintf("%s[%d]", where, i), e)
		}
	}
}

// text allows any string without control characters.
func text(most int) rule {
	return func(c *checker, where string, v any) {
		s, ok := v.(string)
		switch {
		case !ok || len(s) > most:
			c.fail(where, "expected a string of at most %d bytes", most)
		case strings.ContainsFunc(s, unicode.IsControl):
			c.fail(where, "control character in %q", s)
		}
	}
}

func match(expr, what string) rule {
	re := regexp.MustCompile(`^(?:` + expr + `)$`)
	return func(c *checker, where string, v any) {
		if s, ok := v.(string); !ok || len(s) > 256 || !re.MatchString(s) {
			c.fail(where, "expected %s", what)
		}
	}
}

// hostPath allows an absolute path without "." or ".." in it.
func hostPath(c *checker, where string, v any) {
	text(1024)(c, where, v)
	if s, ok := v.(string); ok && (!path.IsAbs(s) || path.Clean(s) != s) {
		c.fail(where, "%.80q is not an absolute, clean path", s)
	}
}

func oneOf(allowed ...string) rule {
	return func(c *checker, where string, v any) {
		if s, ok := v.(string); !ok || !slices.Contains(allowed, s) {
			c.fail(where, "%.80q is not one of %s", fmt.Sprint(v), strings.Join(allowed, ", "))
		}
	}
}

func integer(least, most int64) rule {
	return func(c *checker, where string, v any) {
		if n, ok := number(v); !ok || n < least || n > most {
			c.fail(where, "expected an integer from %d to %d", least, most)
		}
	}
}

func number(v any) (int64, bool) {
	num, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(num.String(), 10, 64)
	return n, err == nil
}

func boolean(c *checker, where string, v any) {
	if _, ok := v.(bool); !ok {
		c.fail(where, "expected true or false")
	}
}

// defbool is libxl_defbool as libxl writes it.
var defbool = oneOf("True", "False", "<default>")

// bitmap is libxl_bitmap: the numbers of the set bits.  They have to ascend,
// since libxl sizes the map by the last one, and must not be negative, since
// libxl_bitmap_set() does not check.
func bitmap(c *checker, where string, v any) {
	l, ok := v.([]any)
	if !ok {
		c.fail(where, "expected a list of bit numbers")
		return
	}
	last := int64(-1)
	for _, e := range l {
		n, ok := number(e)
		if !ok || n <= last || n > 4095 {
			c.fail(where, "expected ascending bit numbers from 0 to 4095")
			return
		}
		last = n
	}
}

// refuse allows nothing but a value that means "unset".
func refuse(reason string) rule {
	return func(c *checker, where string, v any) {
		if !unset(v) {
			c.fail(where, "refused: %s", reason)
		}
	}
}

// refuseBool is refuse for a libxl_defbool.
func refuseBool(reason string) rule {
	return func(c *checker, where string, v any) {
		if s, ok := v.(string); !ok || s != "False" && s != "<default>" {
			c.fail(where, "refused: %s", reason)
		}
	}
}

func unset(v any) bool {
	switch v := v.(type) {
	case string:
		return v == ""
	case bool:
		return !v
	case json.Number:
		return v == "0"
	case []any:
		return len(v) == 0
	case *object:
		return len(v.members) == 0
	}
	return false
}
