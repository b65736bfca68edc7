// SPDX-License-Identifier: Apache-2.0

package xlstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kemari-ft/kemari/xen/abi"
)

// ShellSuffix marks a shell in xl list.
const ShellSuffix = "--kemari"

// Config is the configuration of a domain as libxl keeps it, checked.
type Config struct{ root *object }

// ParseConfig reads and judges a domain's configuration: the content of
// libxl-json, or an element of what xl list -l prints.  An error lists every
// reason to refuse it.
func ParseConfig(data []byte) (*Config, error) {
	v, err := decodeJSON(data)
	if err != nil {
		return nil, fmt.Errorf("domain configuration: %w", err)
	}
	root, ok := unwrap(v)
	if !ok {
		return nil, errors.New("domain configuration: expected an object with c_info and b_info")
	}
	c := &checker{}
	fields(domainConfig)(c, "", root)
	cfg := &Config{root: root}
	cfg.checkWhole(c)
	if err := c.err(); err != nil {
		return nil, fmt.Errorf("domain configuration refused: %w", err)
	}
	return cfg, nil
}

// unwrap finds the configuration in the three forms in which it is met:
// itself, {"domid": N, "config": {...}}, and a list of one of those.
func unwrap(v any) (*object, bool) {
	if l, ok := v.([]any); ok && len(l) == 1 {
		v = l[0]
	}
	o, ok := v.(*object)
	if !ok {
		return nil, false
	}
	if inner, ok := o.get("config").(*object); ok {
		o = inner
	}
	return o, true
}

// checkWhole finds what is missing and what does not go together.
func (cfg *Config) checkWhole(c *checker) {
	cInfo, bInfo := cfg.root.child("c_info"), cfg.root.child("b_info")
	for _, key := range []string{"type", "name", "uuid"} {
		if cInfo.get(key) == nil {
			c.fail("c_info."+key, "missing")
		}
	}
	for _, key := range []string{"max_memkb", "target_memkb", "type.pvh"} {
		if bInfo.get(key) == nil {
			c.fail("b_info."+key, "missing")
		}
	}
	checkShellName(c, "c_info.name", cfg.Name())
	if bInfo.get("max_memkb") != nil && bInfo.get("target_memkb") != nil && cfg.MaxMemKB() != cfg.TargetMemKB() {
		c.fail("b_info", "max_memkb %d and target_memkb %d differ: a ballooned guest cannot be protected; set maxmem= to memory=",
			cfg.MaxMemKB(), cfg.TargetMemKB())
	}
	vdevs := map[string]bool{}
	disks, _ := cfg.root.get("disks").([]any)
	for i, d := range disks {
		o, ok := d.(*object)
		if !ok {
			continue
		}
		where := fmt.Sprintf("disks[%d]", i)
		for _, key := range []string{"pdev_path", "vdev", "backend", "format"} {
			if o.get(key) == nil {
				c.fail(where+"."+key, "missing")
			}
		}
		vdev, _ := o.get("vdev").(string)
		if vdevs[vdev] {
			c.fail(where+".vdev", "%q is used twice", vdev)
		}
		vdevs[vdev] = true
	}
}

// checkShellName finds why there could be no shell of a guest's name.
func checkShellName(c *checker, where, name string) {
	if strings.HasSuffix(name, ShellSuffix) {
		c.fail(where, "%q is the name of a shell", name)
	}
	if n := len(name) + len(ShellSuffix); n > 63 {
		c.fail(where, "too long by %d for a shell's name", n-63)
	}
}

// CheckName judges a guest's name before there is a guest.
func CheckName(name string) error {
	c := &checker{}
	nameRule(c, "name", name)
	checkShellName(c, "name", name)
	return c.err()
}

func (cfg *Config) str(section, key string) string {
	s, _ := cfg.root.child(section).get(key).(string)
	return s
}

func (cfg *Config) num(section, key string) uint64 {
	n, _ := number(cfg.root.child(section).get(key))
	return uint64(n)
}

// Name is the guest's own name.
func (cfg *Config) Name() string { return cfg.str("c_info", "name") }

// UUID is the guest's UUID in lower case.
func (cfg *Config) UUID() string { return strings.ToLower(cfg.str("c_info", "uuid")) }

// VCPUs is the number of vCPUs that the guest can have: one if its configuration says
// nothing of it (libxl__domain_build_info_setdefault(), libxl_create.c).
func (cfg *Config) VCPUs() int { return max(1, int(cfg.num("b_info", "max_vcpus"))) }

// MaxMemKB and TargetMemKB are equal in a Config that was accepted.
func (cfg *Config) MaxMemKB() uint64 { return cfg.num("b_info", "max_memkb") }

// TargetMemKB is the limit that libxl sets by setmaxmem, less its constant.
func (cfg *Config) TargetMemKB() uint64 { return cfg.num("b_info", "target_memkb") }

// HostFiles are the paths that a reboot of the guest needs on its host.
func (cfg *Config) HostFiles() []string {
	var files []string
	for _, key := range []string{"kernel", "ramdisk"} {
		if s := cfg.str("b_info", key); s != "" {
			files = append(files, s)
		}
	}
	return files
}

// Disk is one of the guest's disks.
type Disk struct {
	Vdev, Path string
	Writable   bool
}

// Disks are the guest's disks.
func (cfg *Config) Disks() []Disk {
	var disks []Disk
	l, _ := cfg.root.get("disks").([]any)
	for _, v := range l {
		if o, ok := v.(*object); ok {
			vdev, _ := o.get("vdev").(string)
			path, _ := o.get("pdev_path").(string)
			rw, _ := number(o.get("readwrite"))
			disks = append(disks, Disk{Vdev: vdev, Path: path, Writable: rw != 0})
		}
	}
	return disks
}

// KeepDisks takes all disks out of the configuration but those with one of the
// paths, by vdev.
func (cfg *Config) KeepDisks(paths map[string]string) {
	l, _ := cfg.root.get("disks").([]any)
	kept := slices.DeleteFunc(slices.Clone(l), func(v any) bool {
		o, ok := v.(*object)
		if !ok {
			return false
		}
		vdev, _ := o.get("vdev").(string)
		path, known := paths[vdev]
		return !known || o.get("pdev_path") != path
	})
	if len(kept) < len(l) {
		cfg.root.set("disks", kept)
	}
}

// ShellName is the name of the guest's shell.
func (cfg *Config) ShellName() string { return cfg.Name() + ShellSuffix }

// Shell is the JSON of the save file: the shell's name and domid, no devices.
func (cfg *Config) Shell(domid abi.DomID) ([]byte, error) {
	return cfg.render(cfg.ShellName(), false, func(cInfo *object) {
		cInfo.set("domid", json.Number(strconv.Itoa(int(domid))))
	})
}

// Parked is the libxl-json of a shell once it exists.  The domid is gone from
// it: xl would use it again when the guest reboots, two seconds after the
// domain was destroyed, and libxl__domain_make() refuses a domid that young.
func (cfg *Config) Parked() ([]byte, error) {
	return cfg.render(cfg.ShellName(), false, nil)
}

// Active is the libxl-json of the guest that a shell has become: its own name
// and its devices.
func (cfg *Config) Active() ([]byte, error) {
	return cfg.render(cfg.Name(), true, nil)
}

// render writes a variant.  c_info.poolid never goes along: it numbers a pool
// of the other host, and libxl finds the pool by its name.
func (cfg *Config) render(name string, devices bool, edit func(cInfo *object)) ([]byte, error) {
	root := clone(cfg.root).(*object)
	cInfo := root.child("c_info")
	cInfo.set("name", name)
	cInfo.del("domid", "poolid")
	if edit != nil {
		edit(cInfo)
	}
	if !devices {
		root.del("disks")
	}
	return encodeJSON(root)
}
