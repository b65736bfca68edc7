// SPDX-License-Identifier: Apache-2.0

package xlstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// object is a JSON object that keeps the order of its members, so that what
// goes to libxl reads like what came from it.
type object struct{ members []member }

type member struct {
	key string
	val any // *object, []any, string, json.Number, bool or nil
}

func (o *object) get(key string) any {
	for _, m := range o.members {
		if m.key == key {
			return m.val
		}
	}
	return nil
}

func (o *object) del(keys ...string) {
	o.members = slices.DeleteFunc(o.members, func(m member) bool {
		return slices.Contains(keys, m.key)
	})
}

func (o *object) set(key string, val any) {
	for i := range o.members {
		if o.members[i].key == key {
			o.members[i].val = val
			return
		}
	}
	o.members = append(o.members, member{key, val})
}

// child returns the member that is an object, empty if there is none.
func (o *object) child(key string) *object {
	if c, ok := o.get(key).(*object); ok {
		return c
	}
	return &object{}
}

func clone(v any) any {
	switch v := v.(type) {
	case *object:
		c := &object{members: slices.Clone(v.members)}
		for i := range c.members {
			c.members[i].val = clone(c.members[i].val)
		}
		return c
	case []any:
		c := slices.Clone(v)
		for i := range c {
			c[i] = clone(c[i])
		}
		return c
	}
	return v
}

// Limits of a domain's JSON; libxl's own is a few kilobytes, five deep.
const (
	maxJSON  = 256 << 10
	maxDepth = 12
)

// decodeJSON reads one JSON value and nothing after it.  A key that occurs
// twice is an error: libxl takes the first, most others the last.
func decodeJSON(data []byte) (any, error) {
	if len(data) > maxJSON {
		return nil, fmt.Errorf("JSON of %d bytes (at most %d)", len(data), maxJSON)
	}
	// libxl-json, as libxl writes it to disk, ends in a NUL.
	data = bytes.TrimRight(data, "\x00")
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := decodeValue(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("something follows the JSON value")
	}
	return v, nil
}

func decodeValue(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("JSON nested deeper than %d", maxDepth)
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return tok, nil
	}
	if delim == '[' {
		list := []any{}
		for dec.More() {
			v, err := decodeValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = dec.Token()
		return list, err
	}
	obj, seen := &object{}, map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key, ok := tok.(string)
		if !ok || seen[key] {
			return nil, fmt.Errorf("key %q occurs twice in one object", key)
		}
		seen[key] = true
		v, err := decodeValue(dec, depth+1)
		if err != nil {
			return nil, err
		}
		obj.members = append(obj.members, member{key, v})
	}
	_, err = dec.Token()
	return obj, err
}

// encodeJSON writes v indented, as libxl does.  Members that are null are left
// out: to libxl they are the same as absent.
func encodeJSON(v any) ([]byte, error) {
	var flat, out bytes.Buffer
	if err := appendJSON(&flat, v); err != nil {
		return nil, err
	}
	if err := json.Indent(&out, flat.Bytes(), "", "    "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

func appendJSON(b *bytes.Buffer, v any) error {
	switch v := v.(type) {
	case *object:
		b.WriteByte('{')
		first := true
		for _, m := range v.members {
			if m.val == nil {
				continue
			}
			if !first {
				b.WriteByte(',')
			}
			first = false
			if err := appendJSON(b, m.key); err != nil {
				return err
			}
			b.WriteByte(':')
			if err := appendJSON(b, m.val); err != nil {
				return err
			}
		}
		b.WriteByte('}')
		return nil
	case []any:
		b.WriteByte('[')
		for i, elem := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := appendJSON(b, elem); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	}
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
