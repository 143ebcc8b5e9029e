package configs

import (
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checker holds a decoded Config against the rules that types cannot express.
type checker struct {
	*decoder
	cfg     *Config
	decoded Faults // what decoding found; no second fault is reported for these keys
	actions []string
}

func validate(d *decoder, cfg *Config) {
	c := &checker{decoder: d, cfg: cfg, decoded: slices.Clone(d.faults)}
	types := map[string]bool{}
	for _, m := range cfg.Merchants {
		for t := range m.ActionTypes {
			types[t] = true
		}
	}
	c.actions = slices.Sorted(maps.Keys(types))

	c.server()
	c.redis()
	c.merchants()
	c.challenges()
	c.auth()
	c.push()
	c.app()
	c.targets()
	c.retention()
	c.oneOf("log.level", cfg.Log.Level, "debug", "info", "warn", "error")
	c.oneOf("log.format", cfg.Log.Format, "json", "text")
	if cfg.Tracing.OTLPEndpoint != "" {
		c.url("tracing.otlp_endpoint", cfg.Tracing.OTLPEndpoint, plainAnywhere)
	}
}

// broken tells whether decoding already found the key, its *_file form, a
// section around it, or (for items of lists) something inside it at fault.
func (c *checker) broken(key string) bool {
	return slices.ContainsFunc(c.decoded, func(f Fault) bool {
		inside := strings.HasSuffix(key, "]") && strings.HasPrefix(f.Key, key+".")
		return f.Key == key || f.Key == key+"_file" || inside ||
			strings.HasPrefix(key, f.Key+".") || strings.HasPrefix(key, f.Key+"[")
	})
}

func (c *checker) fault(key, problem, allowed string) {
	if !c.broken(key) {
		c.decoder.fault(key, problem, allowed)
	}
}

func (c *checker) require(ok bool, key, problem, allowed string) {
	if !ok {
		c.fault(key, problem, allowed)
	}
}

func (c *checker) oneOf(key, value string, allowed ...string) {
	c.require(slices.Contains(allowed, value), key, "not a known value", strings.Join(allowed, ", "))
}

func (c *checker) positive(key string, d time.Duration) {
	c.require(d > 0, key, "not above zero", "a duration such as 10s or 72h")
}

func (c *checker) between(key string, n, low, high int) {
	c.require(low <= n && n <= high, key, "out of range", strconv.Itoa(low)+" to "+strconv.Itoa(high))
}

func (c *checker) rate(key string, r RateLimit) {
	c.require(r.PerSecond > 0, key+".per_second", "not above zero", "a number such as 10 or 0.5")
	c.require(r.Burst >= 1, key+".burst", "not above zero", "a whole number from 1")
}

// maxRetryWait is the longest wait between two tries of a webhook.
const maxRetryWait = 7 * 24 * time.Hour

func (c *checker) retry(key string, waits []time.Duration) {
	c.require(len(waits) > 0, key, "an empty list", "durations such as [5s, 30s, 2m]")
	for i, w := range waits {
		c.require(0 < w && w <= maxRetryWait, item(key, i), "out of range", "above zero, at most 168h")
	}
}

func item(key string, i int) string { return key + "[" + strconv.Itoa(i) + "]" }

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)

const nameAllowed = "1 to 64 of a-z, 0-9, _ and -, the first a letter or digit"

func (c *checker) server() {
	s := &c.cfg.Server
	host, port, ok := listenAddress(s.Listen)
	adminHost, adminPort, adminOK := listenAddress(s.AdminListen)
	const allowed = "HOST:PORT or :PORT, the port a number up to 65535"
	c.require(ok, "server.listen", "not an address to listen on", allowed)
	c.require(adminOK, "server.admin_listen", "not an address to listen on", allowed)
	if ok && adminOK && port == adminPort && port != 0 && (host == adminHost || anyHost(host) || anyHost(adminHost)) {
		c.fault("server.admin_listen", "the same port as server.listen", "another port: the ops API must not be public")
	}
	if adminOK && !loopback(adminHost) {
		c.require(c.cfg.Admin.Token.IsSet(), "admin.token", "missing, and server.admin_listen is not a loopback address",
			"a token here or in admin.token_file, or a loopback admin_listen such as 127.0.0.1:9090")
	}
	c.require(!strings.ContainsFunc(c.cfg.Admin.Token.Reveal(), notVisible), "admin.token", "a space or control character in it",
		"visible ASCII characters, as in an Authorization header")

	if s.PublicURL != "" {
		u := c.url("server.public_url", s.PublicURL, plainAnywhere)
		c.require(u == nil || strings.Trim(u.Path, "/")+u.RawQuery == "" && !u.ForceQuery, "server.public_url", "has a path or query", "scheme and host only, such as https://relay.example.com")
		s.PublicURL = strings.TrimSuffix(s.PublicURL, "/")
	}
	c.positive("server.shutdown_timeout", s.ShutdownTimeout)
	c.require(1<<10 <= s.MaxBody && s.MaxBody <= 16<<20, "server.max_body", "out of range", "1KiB to 16MiB")
	for i, origin := range s.CORSOrigins {
		c.require(isOrigin(origin), item("server.cors_origins", i), "not an exact origin as browsers send it",
			"scheme://host or scheme://host:port in lower case; no path, no *, no default port")
	}
}

func notVisible(r rune) bool { return r <= ' ' || r > '~' }

// listenAddress takes HOST:PORT apart; HOST may be empty, a name or an IP address.
func listenAddress(s string) (host string, port uint64, ok bool) {
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, false
	}
	port, err = strconv.ParseUint(text, 10, 16)
	_, ipErr := netip.ParseAddr(host)
	return host, port, err == nil && (host == "" || ipErr == nil || hostname.MatchString(host))
}

func anyHost(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "" || err == nil && addr.IsUnspecified()
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

func (c *checker) redis() {
	r := c.cfg.Redis
	if !r.Embedded() {
		c.redisURL(r.URL.Reveal())
		c.require(len(c.cfg.Storage.Keys) > 0, "storage.keys", "missing, and redis.url is a real Redis",
			"at least one key: 32 random bytes in base64, as openssl rand -base64 32 makes them")
	}
	for i, key := range c.cfg.Storage.Keys {
		_, err := StorageKeys{key}.Bytes()
		c.require(err == nil, item("storage.keys", i), "not a key", "32 bytes in base64, as openssl rand -base64 32 makes them")
	}
	c.require(keyPrefix.MatchString(r.KeyPrefix), "redis.key_prefix", "not a key prefix", "1 to 64 of A-Z, a-z, 0-9, _ . : and -")
	c.between("redis.partitions", r.Partitions, 1, 256)
	c.require(r.WaitReplicas >= 0, "redis.wait_replicas", "below zero", "0 or more")
	if r.Embedded() {
		c.require(r.WaitReplicas <= 0, "redis.wait_replicas", "the embedded Redis has no replicas", "0, or a real redis.url")
	}
}

// Braces would be taken for a cluster hash tag.
var keyPrefix = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,64}$`)

func (c *checker) challenges() {
	ch := c.cfg.Challenges
	c.require(0 < ch.MaxTTL && ch.MaxTTL <= time.Hour, "challenges.max_ttl", "out of range", "above zero, at most 1h")
	for key, ttl := range map[string]time.Duration{"three_ds": ch.TTL.ThreeDS, "card_verification": ch.TTL.CardVerification} {
		c.require(0 < ttl && ttl <= ch.MaxTTL, "challenges.ttl."+key, "out of range",
			"above zero, at most challenges.max_ttl ("+ch.MaxTTL.String()+")")
	}
}

func (c *checker) retention() {
	r := c.cfg.Retention
	var longest time.Duration
	var by string
	for i, t := range c.cfg.Forward.Targets {
		if span := retrySpan(t.Retry); span > longest {
			longest, by = span, item("forward.targets", i)
		}
	}
	for key, d := range map[string]time.Duration{
		"challenges": r.Challenges, "events": r.Events, "deliveries": r.Deliveries, "duplicates": r.Duplicates,
	} {
		c.positive("retention."+key, d)
		if key == "deliveries" && 0 < d && d <= longest {
			c.fault("retention."+key, "shorter than the retries of "+by+" by "+(longest-d).String(),
				"more than "+longest.String()+", the sum of its retry list with 20 % jitter")
		}
	}
	c.require(r.Challenges <= 0 || r.Challenges >= c.cfg.Challenges.MaxTTL, "retention.challenges", "shorter than a challenge may live",
		"at least challenges.max_ttl ("+c.cfg.Challenges.MaxTTL.String()+")")
}

// retrySpan is how long a retry list can take at most: every wait may be 20 %
// longer than written. Waits out of range, a fault of their own, do not count.
func retrySpan(waits []time.Duration) (sum time.Duration) {
	for _, w := range waits {
		if 0 < w && w <= maxRetryWait {
			sum += w + w/5
		}
	}
	return sum
}
