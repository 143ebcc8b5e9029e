package configs

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/bojanz/currency"
)

func (c *checker) auth() {
	j := &c.cfg.Auth.JWT
	c.rate("auth.rate_limit", c.cfg.Auth.RateLimit)
	c.require(j.Issuer != "", "auth.jwt.issuer", "missing", "the iss that tokens must carry")
	c.require(j.Audience != "", "auth.jwt.audience", "missing", "the aud that tokens must carry")
	c.require(j.UserClaim != "", "auth.jwt.user_claim", "empty", "the claim that holds the user's id, such as sub")
	c.require(j.MerchantClaim != "" || len(c.cfg.Merchants) < 2, "auth.jwt.merchant_claim", "missing, and there are several merchants",
		"the claim that names the user's merchant")
	c.require(0 <= j.Leeway && j.Leeway <= 5*time.Minute, "auth.jwt.leeway", "out of range", "0 to 5m")

	c.stepUp()

	given := 0
	for key, set := range map[string]bool{
		"auth.jwt.hs256_secret":    j.HS256Secret.IsSet(),
		"auth.jwt.public_key_file": j.PublicKeyFile != "",
		"auth.jwt.jwks_url":        j.JWKSURL != "",
	} {
		if set || c.broken(key) {
			given++
		}
	}
	c.require(given == 1, "auth.jwt", "needs exactly one way to check signatures", "one of hs256_secret (or hs256_secret_file), public_key_file, jwks_url")
	if j.HS256Secret.IsSet() {
		c.require(len(j.HS256Secret.Reveal()) >= 32, "auth.jwt.hs256_secret", "too short for HMAC-SHA256 (RFC 7518 section 3.2)", "32 bytes or more")
	}
	if j.JWKSURL != "" {
		c.url("auth.jwt.jwks_url", j.JWKSURL, plainInside)
	}
	if j.PublicKeyFile != "" {
		j.PublicKey = c.publicKey("auth.jwt.public_key_file", j.PublicKeyFile)
	}
}

var money = regexp.MustCompile(`^([0-9]{1,20}(?:\.[0-9]{1,10})?) ([A-Z]{3})$`)

// stepUp: browsers bind a passkey to the host of a secure page.
func (c *checker) stepUp() {
	a := &c.cfg.Auth
	c.oneOf("auth.step_up", a.StepUp, "none", "passkey")
	if a.Above != "" {
		m := money.FindStringSubmatch(a.Above)
		c.require(m != nil && currency.IsValid(m[2]), "auth.above", "not an amount of money", `a decimal and an ISO 4217 code, such as "30.00 EUR"`)
		if m != nil {
			a.AboveThis = Money{m[1], m[2]}
		}
		c.require(a.StepUp == "passkey", "auth.above", "set, but auth.step_up is none", "auth.step_up: passkey")
	}
	if a.StepUp != "passkey" {
		return
	}
	u, err := url.Parse(c.cfg.Server.PublicURL)
	if err != nil || u.Host == "" || c.broken("server.public_url") {
		c.require(c.cfg.Server.PublicURL != "", "server.public_url", "missing, and auth.step_up is passkey", "the https address that browsers reach the relay at")
		return
	}
	_, err = netip.ParseAddr(u.Hostname())
	c.require(err != nil && (u.Scheme == "https" || u.Hostname() == "localhost"), "server.public_url", "passkeys do not work at it (auth.step_up)",
		"https and a host name; http only with localhost")
}

// publicKey reads a PEM file: SubjectPublicKeyInfo or PKCS #1.
func (c *checker) publicKey(key, path string) crypto.PublicKey {
	const allowed = "a PEM file with one public key: RSA of at least 2048 bits, ECDSA P-256 or Ed25519"
	data := c.file(path, key)
	if data == nil {
		return nil
	}
	block, _ := pem.Decode(data)
	if block == nil {
		c.fault(key, "the file is not PEM", allowed)
		return nil
	}
	if strings.Contains(block.Type, "PRIVATE KEY") {
		c.fault(key, "the file holds a private key, which the relay must not have", allowed)
		return nil
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		pub, err = x509.ParsePKCS1PublicKey(block.Bytes)
	}
	if err != nil {
		c.fault(key, "the file holds no public key", allowed)
		return nil
	}
	ok := false
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		ok = pub.N.BitLen() >= 2048
	case *ecdsa.PublicKey:
		ok = pub.Curve == elliptic.P256()
	case ed25519.PublicKey:
		ok = true
	}
	if !ok {
		c.fault(key, "the file holds a key of another kind, or too short a one", allowed)
		return nil
	}
	return pub
}

func (c *checker) push() {
	p := c.cfg.Push
	c.vapid(p.VAPID)
	c.oneOf("push.privacy", p.Privacy, "full", "minimal")
	for i, h := range p.EndpointHosts {
		c.require(endpointHost(h), item("push.endpoint_hosts", i), "not a host",
			"host.example, host.example:8443 or *.example.com, in lower case, without https://")
	}
	c.between("push.max_subscriptions_per_user", p.MaxSubscriptionsPerUser, 1, 100)
	c.require(p.PerCardLimit.Count >= 1, "push.per_card_limit.count", "out of range", "1 or more")
	c.positive("push.per_card_limit.window", p.PerCardLimit.Window)
	c.require(p.MuteAfterReport >= 0, "push.mute_after_report", "below zero", "a duration such as 20m, or 0s for none")
}

func (c *checker) vapid(v VAPID) {
	const key = "push.vapid"
	private := v.PrivateKey.IsSet() || c.broken(key+".private_key")
	if v.Subject == "" && v.PublicKey == "" && !private {
		return
	}
	const all = "subject, public_key and private_key together, or none of them (then nothing is pushed)"
	c.require(v.Subject != "", key+".subject", "missing", all)
	c.require(v.PublicKey != "", key+".public_key", "missing", all)
	c.require(private, key+".private_key", "missing", all)
	c.require(c.cfg.Server.PublicURL != "", "server.public_url", "missing, and push.vapid is set",
		"the URL under which browsers reach the relay; notifications link to it")
	if v.Subject != "" {
		c.require(contact(v.Subject), key+".subject", "not a contact (RFC 8292 section 2.1)", "mailto:ops@example.com or an https URL")
	}
	public, err := base64.RawURLEncoding.DecodeString(v.PublicKey)
	if err == nil {
		_, err = ecdh.P256().NewPublicKey(public)
	}
	publicOK := err == nil
	if v.PublicKey != "" {
		c.require(publicOK, key+".public_key", "not a P-256 public key", "65 bytes in base64url without padding, as relay vapid prints them")
	}
	if !v.PrivateKey.IsSet() {
		return
	}
	raw, err := base64.RawURLEncoding.DecodeString(v.PrivateKey.Reveal())
	var scalar *ecdh.PrivateKey
	if err == nil {
		scalar, err = ecdh.P256().NewPrivateKey(raw)
	}
	if err != nil {
		c.fault(key+".private_key", "not a P-256 private key", "32 bytes in base64url without padding, as relay vapid prints them")
		return
	}
	c.require(!publicOK || string(scalar.PublicKey().Bytes()) == string(public), key, "public_key and private_key are not a pair",
		"a pair as relay vapid prints it")
}

func contact(subject string) bool {
	if address, ok := strings.CutPrefix(subject, "mailto:"); ok {
		local, domain, _ := strings.Cut(address, "@")
		return local != "" && hostname.MatchString(domain)
	}
	u, err := url.Parse(subject)
	return err == nil && u.Scheme == "https" && validHost(u)
}

// endpointHost tells whether h is a host, host:port or *.suffix; a suffix has
// a dot in it, so that nobody opens the door to *.com.
func endpointHost(h string) bool {
	if suffix, ok := strings.CutPrefix(h, "*."); ok {
		_, err := netip.ParseAddr(suffix)
		return err != nil && hostname.MatchString(suffix) && strings.Contains(suffix, ".") && h == strings.ToLower(h)
	}
	u, err := url.Parse("https://" + h)
	return err == nil && u.Host == h && h == strings.ToLower(h) && validHost(u)
}
