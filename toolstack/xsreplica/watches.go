// SPDX-License-Identifier: Apache-2.0

package xsreplica

import (
	"fmt"
	"strings"

	"github.com/kemari-ft/kemari/xen/abi"
)

// ParseWatches reads the reply of oxenstored to the control command "watches"
// and picks those of one domain.  There is a line for each watch
// (tools/ocaml/xenstored/connection.ml: debug):
//
//	watch D<domid>: <path> <token>
//
// Neither path nor token is escaped.  A path cannot hold a blank; a token can
// hold anything.  A guest whose token breaks its line cannot be replicated,
// and that is its error, ErrContent; what other domains' tokens look like is ignored.
func ParseWatches(reply string, dom abi.DomID) ([]Watch, error) {
	watches, err := parseWatches(reply, dom)
	if err != nil {
		return nil, fmt.Errorf("watches of domain %d: %w", uint16(dom), content{err})
	}
	return watches, nil
}

func parseWatches(reply string, dom abi.DomID) ([]Watch, error) {
	prefix := fmt.Sprintf("watch D%d: ", uint16(dom))
	var out []Watch
	seen := map[Watch]bool{}
	ours := false
	for line := range strings.SplitSeq(strings.TrimRight(reply, "\x00"), "\n") {
		rest, ok := strings.CutPrefix(line, prefix)
		if !ok {
			if ours && line != "" && !strings.HasPrefix(line, "watch ") {
				return nil, fmt.Errorf("the token of watch %s has a line break", out[len(out)-1].Path)
			}
			ours = ours && line == ""
			continue
		}
		ours = true
		path, token, _ := strings.Cut(rest, " ")
		w := Watch{path, token}
		if err := checkWatch(w); err != nil {
			return nil, err
		}
		if seen[w] {
			return nil, fmt.Errorf("%s %s occurs twice", path, token)
		}
		seen[w] = true
		if out = append(out, w); len(out) > maxWatches {
			return nil, fmt.Errorf("more than %d", maxWatches)
		}
	}
	return out, nil
}

// checkWatch says what is wrong with a watch.
func checkWatch(w Watch) error {
	path := strings.TrimPrefix(w.Path, "@")
	if w.Path == "" || len(w.Path) > maxPath || strings.ContainsFunc(path, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("-/_@", r))
	}) {
		return fmt.Errorf("path %.100q of a watch is not valid", w.Path)
	}
	if len(w.Path)+len(w.Token)+2 > abi.XenstorePayloadMax || strings.ContainsFunc(w.Token, func(r rune) bool { return r < ' ' || r > '~' }) {
		return fmt.Errorf("token %.100q of watch %.100s is too long or not printable", w.Token, w.Path)
	}
	return nil
}
