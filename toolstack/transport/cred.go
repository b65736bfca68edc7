// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"time"

	"github.com/google/renameio/v2"
)

// Credentials are a host's certificate and those of the peers it trusts.
//
// A pair needs no authority: each host makes a certificate for itself, and each
// is given the other's, which it recognises by its fingerprint.
type Credentials struct {
	own   tls.Certificate
	peers map[Fingerprint]bool
}

// Fingerprint is the SHA-256 of a certificate in DER form.
type Fingerprint [sha256.Size]byte

func (f Fingerprint) String() string { return "sha256:" + hex.EncodeToString(f[:]) }

// CreateCertificate makes a self-signed certificate for a host and its key,
// both in PEM form.  It does not expire: a clock that is wrong, or a date that
// nobody remembered, must not end a protection.
func CreateCertificate(host string) (cert, key []byte, err error) {
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: host, Organization: []string{"Kemari pair"}},
		NotBefore:    time.Unix(0, 0),
		// RFC 5280, 4.1.2.5: no well-defined expiration date.
		NotAfter:    time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &secret.PublicKey, secret)
	if err != nil {
		return nil, nil, fmt.Errorf("making a certificate for %s: %w", host, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}

// SaveCertificate writes what CreateCertificate returned.
func SaveCertificate(certFile, keyFile string, cert, key []byte) error {
	if err := renameio.WriteFile(keyFile, key, 0o600); err != nil {
		return fmt.Errorf("writing the key: %w", err)
	}
	if err := renameio.WriteFile(certFile, cert, 0o644); err != nil {
		return fmt.Errorf("writing the certificate: %w", err)
	}
	return nil
}

// ParseFingerprints returns the fingerprints of the certificates in a PEM text.
func ParseFingerprints(text []byte) ([]Fingerprint, error) {
	var found []Fingerprint
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a PEM block is a %s, not a CERTIFICATE", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, err
		}
		found = append(found, sha256.Sum256(block.Bytes))
	}
	if len(found) == 0 {
		return nil, errors.New("no certificate found")
	}
	return found, nil
}

// LoadCredentials reads this host's certificate and key, and a file with the
// certificates of its peers.
func LoadCredentials(certFile, keyFile, peersFile string) (*Credentials, error) {
	own, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("this host's certificate: %w; run kemari pair", err)
	}
	text, err := os.ReadFile(peersFile)
	if err != nil {
		return nil, fmt.Errorf("the peer's certificate: %w; run kemari pair", err)
	}
	prints, err := ParseFingerprints(text)
	if err != nil {
		return nil, fmt.Errorf("the peer's certificate, %s: %w", peersFile, err)
	}
	c := &Credentials{own: own, peers: map[Fingerprint]bool{}}
	for _, f := range prints {
		c.peers[f] = true
	}
	return c, nil
}

func (c *Credentials) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Long records from the first on: they carry epochs, and nobody
		// renders their beginnings.
		DynamicRecordSizingDisabled: true,
		Certificates:                []tls.Certificate{c.own},
		ClientAuth:                  tls.RequireAnyClientCert,
		SessionTicketsDisabled:      true,
		// Not the chain but the certificate itself is known: VerifyConnection
		// takes the place of both sides' ordinary verification.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("the peer has no certificate")
			}
			f := Fingerprint(sha256.Sum256(s.PeerCertificates[0].Raw))
			if !c.peers[f] {
				return fmt.Errorf("the peer's certificate %v (%q) is not one of this host's peers; run kemari pair on both",
					f, s.PeerCertificates[0].Subject.CommonName)
			}
			return nil
		},
	}
}
