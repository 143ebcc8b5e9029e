package configs

import (
	"encoding/base64"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// ownEvents are the events of the relay itself.
var ownEvents = []string{
	"relay.challenge.created", "relay.challenge.approved", "relay.challenge.rejected", "relay.challenge.expired",
	"relay.challenge.completed", "relay.challenge.failed", "relay.challenge.cancelled", "relay.challenge.reported",
	"relay.challenge.unreachable", "relay.event.quarantined",
}

func (c *checker) targets() {
	first := map[string]int{}
	for i, t := range c.cfg.Forward.Targets {
		key := item("forward.targets", i)
		c.require(validName.MatchString(t.Name), key+".name", "missing, or not a name", nameAllowed)
		if at, ok := first[t.Name]; ok && t.Name != "" {
			c.fault(key+".name", "the same as that of "+item("forward.targets", at), "a name of its own")
		} else {
			first[t.Name] = i
		}
		c.target(key, t)
	}
}

func (c *checker) target(key string, t Target) {
	if t.URL == "" {
		c.fault(key+".url", "missing", "an https URL")
	} else {
		c.url(key+".url", t.URL, plainInside)
	}
	c.oneOf(key+".format", t.Format, "json", "envelope")
	c.require(len(t.Events) > 0, key+".events", "an empty list", `at least one event, such as "*"`)
	for i, e := range t.Events {
		c.event(item(key+".events", i), e, t)
	}
	for i, m := range t.Merchants {
		_, ok := c.cfg.Merchants[m]
		c.require(ok || c.broken("merchants"), item(key+".merchants", i), "not a merchant of this file",
			strings.Join(slices.Sorted(maps.Keys(c.cfg.Merchants)), ", "))
	}
	c.require(len(t.Secrets) > 0, key+".secrets", "none given", "at least one whsec_ secret, plain, {value: …} or {file: …}")
	for i, s := range t.Secrets {
		c.require(signingSecret(s.Reveal()), item(key+".secrets", i), "not a Standard Webhooks secret",
			"whsec_ and 24 to 64 bytes in base64")
	}
	c.headers(key+".headers", t.Headers)
	c.timeout(key+".timeout", t.Timeout)
	c.between(key+".concurrency", t.Concurrency, 1, 1024)
	c.require(t.MaxBacklog >= 1, key+".max_backlog", "out of range", "1 or more")
	c.retry(key+".retry", t.Retry)
}

var prefixPattern = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,126}_\*$`)

// event checks one of a target's events, and that the body it would get as an
// envelope, which cannot be masked, is one it may see.
func (c *checker) event(key, e string, t Target) {
	own := e == "relay.*" || slices.Contains(ownEvents, e)
	switch {
	case strings.HasPrefix(e, "relay.") && !own:
		c.fault(key, "not an event of the relay", "relay.*, "+strings.Join(ownEvents, ", "))
	case !own && e != "*" && !eventType.MatchString(e) && !prefixPattern.MatchString(e):
		c.fault(key, "not a type or pattern", "an event type, PREFIX_*, relay.*, the name of a relay event, or *")
	case t.Format == "envelope" && own:
		c.fault(key, "an event of the relay in a target with format: envelope", "events of the issuer, or format: json")
	case t.Format == "envelope" && slices.Contains(c.actions, e) && !t.IncludeOTP:
		c.fault(key, "an action-requiring type with format: envelope, whose body holds the code", "include_otp: true, or format: json")
	}
}

func signingSecret(s string) bool {
	text, ok := strings.CutPrefix(s, "whsec_")
	raw, err := base64.StdEncoding.DecodeString(text)
	return ok && err == nil && 24 <= len(raw) && len(raw) <= 64
}

// Header names are tokens (RFC 9110 section 5.6.2).
var headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")

var reservedHeaders = []string{"webhook-id", "webhook-timestamp", "webhook-signature", "x-relay-event-type", "x-relay-attempt",
	"content-type", "content-length", "transfer-encoding", "connection", "host"}

func (c *checker) headers(key string, headers map[string]Secret) {
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		at, lower := join(key, name), strings.ToLower(name)
		c.require(headerName.MatchString(name), at, "not the name of a header", "letters, digits and -")
		c.require(!slices.Contains(reservedHeaders, lower), at, "set by the relay itself", "headers other than "+strings.Join(reservedHeaders, ", "))
		c.require(!seen[lower], at, "given twice in different cases", "one of them")
		c.require(headerValue(headers[name].Reveal()), at, "empty, or not a header's value", "visible characters and spaces, none at the ends")
		seen[lower] = true
	}
}

func headerValue(s string) bool {
	control := func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
	return s != "" && s == strings.TrimSpace(s) && !strings.ContainsFunc(s, control)
}
