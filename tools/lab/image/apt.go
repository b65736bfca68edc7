// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Suite is the Debian release inside the lab's hosts and guests.
const Suite = "trixie"

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Packages that the machine outside needs, by what they are for. They are
// installed by name through apt when they are missing.
var (
	hostDisk   = []string{"e2fsprogs"}
	hostRoot   = []string{"mmdebstrap", "debian-archive-keyring", "e2fsprogs", "kmod", "xz-utils", "zstd"}
	hostXen    = []string{"gcc", "libc6-dev", "make", "flex", "bison", "bc", "python3", "xz-utils", "patch"}
	hostKernel = []string{"libelf-dev", "binutils"}
	hostTools  = []string{"libyajl-dev", "uuid-dev", "libncurses-dev", "libnl-3-dev", "libnl-route-3-dev",
		"zlib1g-dev", "libssl-dev", "libbz2-dev", "liblzma-dev", "libzstd-dev", "python3-dev",
		"acpica-tools", "pkg-config", "g++", "gettext"}
)

// run runs a command in dir and puts what it wrote into the error.
func run(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err,
			tail(append(out.Bytes(), errOut.Bytes()...), 4000))
	}
	return out.Bytes(), nil
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// require installs those of the named packages that are not installed.
func (b *Builder) require(ctx context.Context, packages []string) error {
	if len(notInstalled(ctx, packages)) == 0 {
		return nil
	}
	// apt does not wait for another one.
	unlock, err := b.store.Lock("apt")
	if err != nil {
		return err
	}
	defer unlock()
	missing := notInstalled(ctx, packages)
	if len(missing) == 0 {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("packages are missing; run as root: apt-get install --no-install-recommends %s",
			strings.Join(missing, " "))
	}
	b.logf("installing %s", strings.Join(missing, " "))
	if _, err := run(ctx, "", "apt-get", "update", "-q"); err != nil {
		return err
	}
	args := append([]string{"install", "-q", "-y", "--no-install-recommends"}, missing...)
	_, err = run(ctx, "", "apt-get", args...)
	return err
}

func notInstalled(ctx context.Context, packages []string) (list []string) {
	for _, p := range packages {
		out, err := run(ctx, "", "dpkg-query", "-W", "-f", "${db:Status-Status}", p)
		if err != nil || string(out) != "installed" {
			list = append(list, p)
		}
	}
	return list
}

// mirror is the archive that this machine's own apt uses, so that no mirror
// is ever chosen by us.
func mirror(ctx context.Context) (string, error) {
	out, err := run(ctx, "", "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
	if err != nil {
		return "", err
	}
	uris := strings.Fields(string(out))
	slices.Sort(uris)
	for _, u := range uris {
		// The security archive is another one, with a name of its own.
		if strings.HasSuffix(u, "/debian/") {
			return u, nil
		}
	}
	return "", fmt.Errorf("apt has no Debian archive configured (apt-get indextargets names %q)", uris)
}

// An apt is a private apt configuration for one suite, which leaves the
// machine's own lists alone.
type apt struct {
	dir  string
	opts []string
}

func newApt(ctx context.Context, dir, types string) (*apt, error) {
	uri, err := mirror(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"lists/partial", "cache/archives/partial", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	parts := filepath.Join(dir, "etc")
	src := fmt.Sprintf("Types: %s\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n", types, uri, Suite, keyring)
	if err := os.WriteFile(filepath.Join(parts, "lab.sources"), []byte(src), 0o644); err != nil {
		return nil, err
	}
	status := filepath.Join(dir, "status")
	if err := os.WriteFile(status, nil, 0o644); err != nil {
		return nil, err
	}
	a := &apt{dir: dir, opts: []string{
		"-q",
		"-o", "Dir::Etc::SourceList=/dev/null",
		"-o", "Dir::Etc::SourceParts=" + parts,
		"-o", "Dir::State::lists=" + filepath.Join(dir, "lists"),
		"-o", "Dir::State::status=" + status,
		"-o", "Dir::Cache=" + filepath.Join(dir, "cache"),
		"-o", "APT::Architecture=amd64",
		"-o", "APT::Sandbox::User=root",
		"-o", "APT::Get::List-Cleanup=0",
	}}
	_, err = a.get(ctx, "update")
	return a, err
}

func (a *apt) get(ctx context.Context, args ...string) ([]byte, error) {
	return run(ctx, a.dir, "apt-get", append(slices.Clone(a.opts), args...)...)
}

// dependency is the package that another one, which itself has no version in its
// name, is there for: linux-image-6.12.57+deb13-cloud-amd64 of linux-image-cloud-amd64.
func (a *apt) dependency(ctx context.Context, of string) (string, error) {
	shown, err := run(ctx, a.dir, "apt-cache", append(slices.Clone(a.opts), "show", "--no-all-versions", of)...)
	if err != nil {
		return "", err
	}
	m := dependsLine.FindSubmatch(shown)
	if m == nil {
		return "", fmt.Errorf("package %s names no Linux package it depends on", of)
	}
	return string(m[1]), nil
}

var dependsLine = regexp.MustCompile(`(?m)^Depends: .*?\b(linux-(?:image|source)-[^ ,]+)`)
