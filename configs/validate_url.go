package configs

import (
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// hostname is a DNS name in ASCII (RFC 1123), underscores included as
// container networks use them. IPv4 addresses match as well.
var hostname = regexp.MustCompile(`^(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)

type plainHTTP bool

const (
	plainAnywhere plainHTTP = true
	plainInside   plainHTTP = false // only to localhost, loopback and private addresses
)

// url checks an absolute http(s) URL and returns it, or nil after a fault. The
// faults do not repeat the URL, as it may hold credentials.
func (c *checker) url(key, text string, plain plainHTTP) *url.URL {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || !validHost(u):
		c.fault(key, "not a URL", "an absolute http or https URL such as https://host.example/path")
	case u.User != nil:
		c.fault(key, "has a user name or password in it", "a URL without them; it is logged")
	case u.Fragment != "" || strings.Contains(text, "#"):
		c.fault(key, "has a fragment", "a URL without #")
	case u.Scheme == "http" && plain == plainInside && !inside(u.Hostname()):
		c.fault(key, "plain http to a host that may be public", "https; http only to localhost and to loopback or private IP addresses")
	default:
		return u
	}
	return nil
}

// base is url for a URL that paths are appended to.
func (c *checker) base(key, text string) {
	if u := c.url(key, text, plainInside); u != nil {
		c.require(u.RawQuery == "" && !u.ForceQuery, key, "has a query", "a URL without ?")
	}
}

func validHost(u *url.URL) bool {
	_, err := netip.ParseAddr(u.Hostname())
	return (err == nil || hostname.MatchString(u.Hostname())) && validPort(u)
}

func validPort(u *url.URL) bool {
	if u.Port() == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && port > 0
}

// inside tells whether a host is this machine or on a private network. Names
// other than localhost are not looked up: what they point to can change.
func inside(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && (addr.Unmap().IsLoopback() || addr.Unmap().IsPrivate())
}

// isOrigin tells whether s is an origin exactly as browsers serialize it
// (RFC 6454 section 6.2); anything else would never match.
func isOrigin(s string) bool {
	u, err := url.Parse(s)
	return err == nil && s == u.Scheme+"://"+u.Host && s == strings.ToLower(s) && validHost(u) &&
		!(u.Scheme == "https" && u.Port() == "443") && !(u.Scheme == "http" && u.Port() == "80")
}

// redisURL checks redis[s]://[user:password@]HOST[:PORT][/DB],
// redis[s]+sentinel://…@HOST,HOST,…/NAME[/DB] and redis[s]+cluster://…@HOST,HOST,….
func (c *checker) redisURL(text string) {
	const key, allowed = "redis.url", "redis://HOST:PORT/DB, redis+sentinel://HOST,HOST/NAME, redis+cluster://HOST,HOST, " +
		"the same with rediss for TLS, each with USER:PASSWORD@ before the hosts if needed, or embedded"
	scheme, rest, _ := strings.Cut(text, "://")
	secure, topology, _ := strings.Cut(scheme, "+")
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, tail := rest[:end], rest[end:]
	at := strings.LastIndexByte(authority, '@') + 1
	hosts := strings.Split(authority[at:], ",")

	known := (secure == "redis" || secure == "rediss") &&
		(scheme == secure || topology == "sentinel" || topology == "cluster")
	if !known {
		c.fault(key, "not a scheme for Redis", allowed)
		return
	}
	if scheme == secure && len(hosts) > 1 {
		c.fault(key, "several hosts without +sentinel or +cluster", allowed)
		return
	}
	// The hosts are parsed one at a time, as net/url knows only one.
	for _, host := range hosts {
		u, err := url.Parse("redis://" + authority[:at] + host + tail)
		if err != nil || !validHost(u) || u.Fragment != "" {
			c.fault(key, "not a URL for Redis", allowed+"; special characters of the password as %XX")
			return
		}
		if !redisPath(topology, strings.Trim(u.Path, "/")) {
			c.fault(key, "not the right path after the hosts",
				"the number of the database for one Redis, the master's NAME for sentinel, none for cluster")
			return
		}
	}
}

func redisPath(topology, path string) bool {
	switch topology {
	case "cluster":
		return path == "" || path == "0"
	case "sentinel":
		master, db, _ := strings.Cut(path, "/")
		return master != "" && isDB(db)
	}
	return isDB(path)
}

func isDB(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil
}
