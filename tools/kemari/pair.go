// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/kemari-ft/kemari/toolstack/config"
	"github.com/kemari-ft/kemari/toolstack/transport"
	"github.com/spf13/cobra"
)

// pairCmd makes the two hosts know each other. It goes over ssh, by which the
// operator already tells one host from an impostor.
func pairCmd() *cobra.Command {
	var export, accept bool
	cmd := &cobra.Command{
		Use:   "pair HOST",
		Short: "Make the certificates by which this host and another know each other",
		Long: `Make the certificates by which this host and HOST know each other.

The other host is reached by ssh as root. Without ssh, run on each host
"kemari pair --export", and give what it prints to "kemari pair --accept" on the
other one.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if export || accept {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.ExactArgs(1)(cmd, args)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			h, err := config.LoadHost(config.File)
			if err != nil {
				return err
			}
			if accept {
				return acceptCert(h)
			}
			cert, err := ownCert(h)
			if err != nil {
				return err
			}
			if export {
				_, err := os.Stdout.Write(cert)
				return err
			}
			return pair(h, args[0], cert)
		},
	}
	cmd.Flags().BoolVar(&export, "export", false, "print this host's certificate")
	cmd.Flags().BoolVar(&accept, "accept", false, "read the other host's certificate from standard input")
	return cmd
}

// ownCert returns this host's certificate, which it makes if there is none.
func ownCert(h *config.Host) ([]byte, error) {
	cert, err := os.ReadFile(h.Cert)
	if !errors.Is(err, os.ErrNotExist) {
		return cert, err
	}
	name, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	cert, key, err := transport.CreateCertificate(name)
	if err != nil {
		return nil, err
	}
	for _, f := range []string{h.Cert, h.Key} {
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			return nil, err
		}
	}
	return cert, transport.SaveCertificate(h.Cert, h.Key, cert, key)
}

func acceptCert(h *config.Host) error {
	var b bytes.Buffer
	if _, err := b.ReadFrom(os.Stdin); err != nil {
		return err
	}
	return savePeer(h, b.Bytes())
}

func savePeer(h *config.Host, cert []byte) error {
	prints, err := transport.ParseFingerprints(cert)
	if err != nil {
		return fmt.Errorf("the other host's certificate: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(h.PeerCert), 0o755); err != nil {
		return err
	}
	if err := renameio.WriteFile(h.PeerCert, cert, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "the peer is %v; restart kemarid if it runs\n", prints[0])
	return nil
}

func pair(h *config.Host, peer string, cert []byte) error {
	if strings.HasPrefix(peer, "-") {
		return fmt.Errorf("%q is not the name of a host", peer)
	}
	theirs, err := ssh(peer, nil, "kemari pair --export")
	if err != nil {
		return err
	}
	if _, err := ssh(peer, cert, "kemari pair --accept"); err != nil {
		return err
	}
	return savePeer(h, theirs)
}

func ssh(peer string, input []byte, command string) ([]byte, error) {
	cmd := exec.Command("ssh", "root@"+peer, command)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("ssh root@%s %s: %w", peer, command, err)
	}
	return out, nil
}
