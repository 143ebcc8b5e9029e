package push

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxEndpoint bounds an endpoint in bytes; those of the known services are below 600.
const maxEndpoint = 1000

// knownHosts are the push services of the browsers: Chrome and Edge on Android,
// unbranded Chromium, Firefox, Edge on Windows, Safari.
var knownHosts = []string{
	"fcm.googleapis.com",
	"jmt17.google.com",
	"*.push.services.mozilla.com",
	"*.notify.windows.com",
	"*.push.apple.com",
}

// Policy says which endpoints may be pushed to. It is immutable and safe for
// concurrent use.
type Policy struct {
	exact        map[string]bool // "host:port"
	suffixes     []string        // ".push.apple.com", on port 443
	ports        []uint16        // every port that exact or suffixes allow
	allowPrivate bool
}

// NewPolicy allows the push services of the browsers and hosts: "host" (port 443),
// "host:port" or "*.suffix" (port 443, at least one label before the suffix).
// allowPrivate is for development: any host and port, private addresses, http too.
// The error names every host that is wrong.
func NewPolicy(hosts []string, allowPrivate bool) (*Policy, error) {
	p := &Policy{exact: map[string]bool{}, ports: []uint16{443}, allowPrivate: allowPrivate}
	var errs []error
	for _, h := range slices.Concat(knownHosts, hosts) {
		if err := p.allow(h); err != nil {
			errs = append(errs, fmt.Errorf("push endpoint host %q: %w", h, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Policy) allow(entry string) error {
	entry = strings.ToLower(entry)
	if suffix, ok := strings.CutPrefix(entry, "*."); ok {
		if !validHost(suffix) || !strings.Contains(suffix, ".") {
			return errors.New("write *.suffix with at least two labels and no port, such as *.push.example.com")
		}
		p.suffixes = append(p.suffixes, "."+suffix)
		return nil
	}
	host, port, hasPort := strings.Cut(entry, ":")
	if !hasPort {
		port = "443"
	}
	n, err := parsePort(port)
	if err != nil || !validHost(host) {
		return errors.New("write host, host:port or *.suffix, without a scheme or path, such as push.example.com")
	}
	p.exact[net.JoinHostPort(host, port)] = true
	p.ports = append(p.ports, n)
	return nil
}

// normalise returns the endpoint with its host in lower case and without a default
// port, everything after the authority byte for byte, or says what is wrong with it.
func (p *Policy) normalise(endpoint string) (string, error) {
	switch {
	case endpoint == "":
		return "", errors.New("is missing")
	case len(endpoint) > maxEndpoint:
		return "", fmt.Errorf("must be at most %d bytes", maxEndpoint)
	case strings.ContainsFunc(endpoint, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errors.New("must be a URL of printable ASCII characters")
	case strings.Contains(endpoint, "#"):
		return "", errors.New("must not have a fragment")
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return "", errors.New("must be an absolute URL")
	}
	if u.User != nil {
		return "", errors.New("must not have a user name")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !p.allowPrivate) {
		return "", errors.New("must be an https URL")
	}
	// An authority that net/url did not have to unescape is the text that follows
	// "://", so that what comes after it can be kept untouched.
	rest, ok := strings.CutPrefix(endpoint[len(u.Scheme)+len("://"):], u.Host)
	if !ok || strings.Contains(u.Host, "%") || strings.HasSuffix(u.Host, ":") {
		return "", errors.New("must have a plain host name")
	}
	if err := p.checkHost(u); err != nil {
		return "", err
	}
	return u.Scheme + "://" + authority(u) + rest, nil
}

func (p *Policy) checkHost(u *url.URL) error {
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if port == "" {
		port = defaultPort(u.Scheme)
	}
	if _, err := parsePort(port); err != nil {
		return errors.New("must have a port from 1 to 65535")
	}
	if p.allowPrivate || p.exact[net.JoinHostPort(host, port)] {
		return nil
	}
	if port == "443" && validHost(host) {
		for _, s := range p.suffixes {
			if strings.HasSuffix(host, s) {
				return nil
			}
		}
	}
	return errors.New("is not at a push service this relay may use; the operator can add its host")
}

// authority is the host in lower case with the port unless it is the scheme's own:
// RFC 8292 wants the origin in "aud", and an origin names no default port.
func authority(u *url.URL) string {
	host := strings.ToLower(u.Host)
	return strings.TrimSuffix(host, ":"+defaultPort(u.Scheme))
}

func defaultPort(scheme string) string {
	if scheme == "http" {
		return "80"
	}
	return "443"
}

// parsePort takes the one decimal form of a port: no sign, no leading zero.
func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != s {
		return 0, errors.New("not a port")
	}
	return uint16(n), nil
}

// validHost tells whether h is a lower-case DNS name (or IPv4 address) without a
// trailing dot.
func validHost(h string) bool {
	if len(h) > 253 {
		return false
	}
	for label := range strings.SplitSeq(h, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}
