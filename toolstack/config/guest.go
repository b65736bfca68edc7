// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/toolstack/xlcfg"
)

// Bounds of Guest.Interval.
const (
	MinInterval = 10 * time.Millisecond
	MaxInterval = time.Minute
)

// Guest is what the ft keys of a guest's configuration ask for.
type Guest struct {
	Peer     URI
	Interval time.Duration // longest epoch
}

// ParseGuest reads the ft keys of a guest's configuration; it is nil if the
// guest does not ask for protection.  It also finds what in the rest of the
// configuration contradicts protection.
func ParseGuest(f *xlcfg.File, host *Host) (*Guest, error) {
	g := &Guest{Peer: host.Peer, Interval: time.Second}
	keys := g.keys()
	errs := keys.decode(f, ours)

	ft, asked := f.Get("ft")
	if !asked {
		for _, s := range f.Settings {
			if ours(s.Key) && keys[s.Key] != nil {
				errs = append(errs, f.Errorf(s.Line, `%s without ft = "kemari" has no effect; add it or remove this line`, s.Key))
			}
		}
		return nil, errors.Join(errs...)
	}
	if _, named := f.Get("ft_peer"); g.Peer.Transport == "" && !named {
		errs = append(errs, f.Errorf(ft.Line, "ft: no peer; set ft_peer here or peer in %s (%s)", File, uriForms))
	}
	errs = append(errs, unprotectable(f, ft.Line)...)
	if len(errs) != 0 {
		return nil, errors.Join(errs...)
	}
	return g, nil
}

// CheckKeys judges the ft keys of a configuration alone: for a guest whose ft stands
// on xl's command line, where the rest of the file may be replaced, too.
func CheckKeys(f *xlcfg.File) error {
	var g Guest
	return errors.Join(g.keys().decode(f, ours)...)
}

func (g *Guest) keys() table {
	return table{
		"ft": func(v xlcfg.Value) error {
			if s, err := text(v); err != nil || s != "kemari" {
				return fmt.Errorf(`%.40q; allowed: "kemari"`, s)
			}
			return nil
		},
		"ft_peer":        setURI(&g.Peer),
		"ft_interval_ms": setNumber(int(MinInterval.Milliseconds()), int(MaxInterval.Milliseconds()), millis(&g.Interval)),
	}
}

// ours: none of xl's own keys begins so. One that is misspelt must not be overlooked.
func ours(key string) bool { return strings.HasPrefix(key, "ft") }

// refused are keys that a protected guest cannot have, unless their value is
// one that turns them off, with what to do instead. What they make of libxl's
// configuration xlstream refuses; an operator is to be told before there is one.
var refused = map[string]string{
	"pci":               "devices of the host cannot be given to it",
	"rdm":               "devices of the host cannot be given to it",
	"dtdev":             "devices of the host cannot be given to it",
	"ioports":           "devices of the host cannot be given to it",
	"irqs":              "devices of the host cannot be given to it",
	"iomem":             "devices of the host cannot be given to it",
	"vif":               "network devices (vif) cannot be protected yet",
	"vfb":               "this class of device is not protected; use the console",
	"vkb":               "this class of device is not protected; use the console",
	"vtpm":              "this class of device is not protected",
	"p9":                "this class of device is not protected",
	"pvcalls":           "this class of device is not protected",
	"vdispl":            "this class of device is not protected",
	"vsnd":              "this class of device is not protected",
	"virtio":            "this class of device is not protected",
	"channel":           "this class of device is not protected",
	"usbctrl":           "this class of device is not protected",
	"usbdev":            "this class of device is not protected",
	"nomigrate":         "it goes to another host",
	"passthrough":       "devices of the host cannot be given to it",
	"nestedhvm":         "nested virtualisation is not protected",
	"altp2m":            "alternate memory views are not protected",
	"vpmu":              "performance counters are not protected",
	"vnuma":             "virtual NUMA is not protected",
	"pvshim":            "a PV guest in a shim is not protected",
	"seclabel":          "XSM labels are not carried to another host",
	"init_seclabel":     "XSM labels are not carried to another host",
	"llc_colors":        "resources of the host cannot be given to it",
	"device_tree":       "not for a PVH guest",
	"bootloader":        "it would run on the other host; use kernel= with a PVH boot loader image",
	"device_model_args": "a PVH guest has no device model",
	"driver_domain":     "a driver domain cannot be protected",
	"vmtrace_buf_kb":    "processor tracing is not protected",

	"device_model_override": "a PVH guest has no device model",
	"device_model_user":     "a PVH guest has no device model",
}

// maxEventChannels is the highest port that a protected guest can have, see
// XEN_KEMARI_MAX_PORTS.
const maxEventChannels = 4095

func unprotectable(f *xlcfg.File, ftLine int) (errs []error) {
	for _, s := range f.Settings {
		why, bad := refused[s.Key]
		if off := s.Value.Text == "0" || s.Value.Text == "disabled" || !s.Value.IsList && s.Value.Text == ""; bad && !off && (!s.Value.IsList || len(s.Value.List) > 0) {
			errs = append(errs, f.Errorf(s.Line, "%s contradicts ft (line %d): %s", s.Key, ftLine, why))
		}
	}
	if s, ok := f.Get("name"); ok {
		if err := xlstream.CheckName(s.Value.Text); err != nil {
			errs = append(errs, f.Errorf(s.Line, "%v", err))
		}
	}
	for _, key := range []string{"kernel", "ramdisk"} {
		if s, ok := f.Get(key); ok {
			if err := absolute(s.Value.Text); err != nil {
				errs = append(errs, f.Errorf(s.Line, "%s contradicts ft (line %d): %v", key, ftLine, err))
			}
		}
	}
	if s, ok := f.Get("type"); !ok || s.Value.Text != "pvh" {
		line := ftLine
		if ok {
			line = s.Line
		}
		errs = append(errs, f.Errorf(line, `ft needs type = "pvh"`))
	}
	memory, _ := f.Get("memory")
	if maxmem, ok := f.Get("maxmem"); ok && maxmem.Value.Text != memory.Value.Text {
		errs = append(errs, f.Errorf(maxmem.Line, "maxmem contradicts ft (line %d): a ballooned guest cannot be protected; make it equal to memory (line %d)", ftLine, memory.Line))
	}
	if s, ok := f.Get("hap"); ok && s.Value.Text == "0" {
		errs = append(errs, f.Errorf(s.Line, "hap=0 contradicts ft (line %d): hardware assisted paging is needed", ftLine))
	}
	if s, ok := f.Get("max_event_channels"); ok {
		if n, err := strconv.Atoi(s.Value.Text); err == nil && n > maxEventChannels {
			errs = append(errs, f.Errorf(s.Line, "max_event_channels contradicts ft (line %d): at most %d are possible", ftLine, maxEventChannels))
		}
	}
	if s, ok := f.Get("max_grant_version"); ok && s.Value.Text != "1" {
		errs = append(errs, f.Errorf(s.Line, "max_grant_version contradicts ft (line %d); allowed: 1", ftLine))
	}
	if s, ok := f.Get("disk"); ok {
		if _, err := TapDisks(s.Value); err != nil {
			errs = append(errs, f.Errorf(s.Line, "disk contradicts ft (line %d): %v", ftLine, err))
		}
	}
	return errs
}

// blockScript is the hotplug script of the disks that kemarid serves. The one
// that libxl would run for such a disk asks for a tool of another back end.
const blockScript = "block-kemari"

// TapDisks turns the disk specifications of a protected guest, each as in
// xl-disk-configuration(5), into ones that kemarid serves.
func TapDisks(v xlcfg.Value) ([]string, error) {
	specs, ok := v.Strings()
	if !ok {
		return nil, errors.New("expected a list of strings")
	}
	out := make([]string, 0, len(specs))
	for _, spec := range specs {
		// target= takes the rest of the string, commas and all.
		params, _, _ := strings.Cut(spec, "target=")
		tap, script := false, false
		for _, p := range strings.Split(params, ",") {
			p = strings.TrimSpace(p)
			key, val, _ := strings.Cut(p, "=")
			switch {
			case p == "backendtype=tap":
				tap = true
			case key == "backendtype":
				return nil, fmt.Errorf("%.80q: backendtype=%s; allowed: tap, which ft sets by itself", spec, val)
			case p == "script="+blockScript:
				script = true
			case key == "script", key == "backend", key == "specification" && val != "xen":
				return nil, fmt.Errorf("%.80q: %s= is not possible", spec, key)
			case p == "cdrom", p == "devtype=cdrom":
				return nil, fmt.Errorf("%.80q: a CD-ROM cannot be protected", spec)
			case key == "format" && val != "raw", p == "qcow", p == "qcow2", p == "vhd", p == "qed":
				return nil, fmt.Errorf("%.80q: only the format raw can be protected", spec)
			case strings.Contains(key, ":") && !strings.HasPrefix(key, "phy:") && !strings.HasPrefix(key, "file:") && !strings.HasPrefix(key, "raw:") && !strings.HasPrefix(key, "/"):
				return nil, fmt.Errorf("%.80q: %.20q is not possible; give the path alone", spec, key)
			}
		}
		// In front, since a positional parameter may not follow target= and
		// a named one may stand anywhere before it.
		if !script {
			spec = "script=" + blockScript + "," + spec
		}
		if !tap {
			spec = "backendtype=tap," + spec
		}
		out = append(out, spec)
	}
	return out, nil
}
