// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kemari-ft/kemari/toolstack/xlcfg"
)

// table says what each key of a file sets.
type table map[string]func(xlcfg.Value) error

func (t table) names() string {
	var names []string
	for name := range t {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// decode applies the settings of f that the table covers, those for which
// covers is true, and collects the errors.
func (t table) decode(f *xlcfg.File, covers func(key string) bool) (errs []error) {
	for _, s := range f.Settings {
		if !covers(s.Key) {
			continue
		}
		set, known := t[s.Key]
		if !known {
			errs = append(errs, f.Errorf(s.Line, "unknown key %.40q; allowed: %s", s.Key, t.names()))
			continue
		}
		if err := set(s.Value); err != nil {
			errs = append(errs, f.Errorf(s.Line, "%s: %v", s.Key, err))
		}
	}
	return errs
}

func text(v xlcfg.Value) (string, error) {
	if v.IsList {
		return "", errors.New("expected a string, not a list")
	}
	return v.Text, nil
}

func setText(dst *string, check func(string) error) func(xlcfg.Value) error {
	return func(v xlcfg.Value) error {
		s, err := text(v)
		if err == nil {
			err = check(s)
		}
		if err == nil {
			*dst = s
		}
		return err
	}
}

func setURI(dst *URI) func(xlcfg.Value) error {
	return func(v xlcfg.Value) error {
		s, err := text(v)
		if err != nil {
			return err
		}
		u, err := ParseURI(s)
		if err == nil {
			*dst = u
		}
		return err
	}
}

func setNumber(least, most int, store func(int)) func(xlcfg.Value) error {
	return func(v xlcfg.Value) error {
		s, err := text(v)
		if err != nil {
			return err
		}
		// Base 0 with a leading zero would be octal, as in xl; nobody means it.
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil || int(n) < least || int(n) > most {
			return fmt.Errorf("%.40q; allowed: a number from %d to %d", s, least, most)
		}
		store(int(n))
		return nil
	}
}

func millis(dst *time.Duration) func(int) {
	return func(n int) { *dst = time.Duration(n) * time.Millisecond }
}

func absolute(s string) error {
	if !path.IsAbs(s) || path.Clean(s) != s || strings.ContainsRune(s, 0) {
		return fmt.Errorf("%.100q; allowed: an absolute path without . or ..", s)
	}
	return nil
}
