package configs

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

var encodings = []string{"utf8", "hex", "base64"}

// fieldNames are the fields an event is mapped to.
var fieldNames = []string{"card_id", "user_id", "reference", "otp", "url", "payee", "country",
	"amount", "currency", "last4", "wallet", "occurred", "expires", "status"}

var (
	dottedPath = regexp.MustCompile(`^[^.\s]+(?:\.[^.\s]+)*$`)
	eventType  = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)
)

func (c *checker) merchants() {
	c.require(len(c.cfg.Merchants) > 0, "merchants", "none configured", "at least one, such as acme: {secrets: [{value: …}]}")
	for _, id := range slices.Sorted(maps.Keys(c.cfg.Merchants)) {
		key := join("merchants", id)
		c.require(validName.MatchString(id), key, "not a name for a merchant", nameAllowed)
		c.merchant(key, c.cfg.Merchants[id])
	}
}

func (c *checker) merchant(key string, m Merchant) {
	c.require(len(m.Secrets) > 0, key+".secrets", "none given", "at least one {value: …, encoding: utf8} or {file: …}")
	for i, s := range m.Secrets {
		at := item(key+".secrets", i)
		c.oneOf(at+".encoding", s.Encoding, encodings...)
		if !s.Value.IsSet() {
			c.fault(at, "neither value nor file", "one of the two")
			continue
		}
		if _, err := s.Key(); err != nil && slices.Contains(encodings, s.Encoding) {
			c.fault(at, err.Error(), "16, 24 or 32 bytes, written as its encoding says")
		}
	}
	for t, kind := range m.ActionTypes {
		at := join(key+".action_types", t)
		c.require(eventType.MatchString(t) && !strings.HasPrefix(t, "relay."), at, "not an event type of the issuer",
			"letters, digits, _ . and -, not starting with relay.")
		c.oneOf(at, kind, "three_ds", "card_verification")
	}
	for field, paths := range m.Fields {
		at := join(key+".fields", field)
		c.require(slices.Contains(fieldNames, field), at, "not a field", strings.Join(fieldNames, ", "))
		c.require(len(paths) > 0, at, "an empty list", "at least one path such as card.id")
		for i, p := range paths {
			c.require(dottedPath.MatchString(p), item(at, i), "not a path", "names joined by dots, such as card.id")
		}
	}
	c.require(slices.Contains([]string{"", "approve", "otp", "url"}, m.Method), key+".method", "not a known value",
		`"" (told by the payload), approve, otp, url`)
	c.rate(key+".rate_limit", m.RateLimit)
	if m.IssuerAPI != nil {
		c.issuerAPI(key+".issuer_api", m.IssuerAPI)
	}
}

func (c *checker) issuerAPI(key string, a *IssuerAPI) {
	if a.BaseURL == "" {
		c.fault(key+".base_url", "missing", "the issuer's https URL")
	} else {
		c.base(key+".base_url", a.BaseURL)
		a.BaseURL = strings.TrimSuffix(a.BaseURL, "/")
	}
	c.require(a.MerchantID != "" && !strings.ContainsFunc(a.MerchantID, notVisible), key+".merchant_id", "missing, or not a header's value",
		"the id the issuer gave, sent as Merchant-ID")
	c.timeout(key+".timeout", a.Timeout)
	if f := a.Confirm; f != nil {
		c.path(key+".confirm.path", f.Path)
		usesDecision := c.body(key+".confirm.body", f.Body, "$decision")
		c.require(usesDecision, key+".confirm.body", "does not hold $decision, so approve and reject would look the same",
			`a mapping with "$decision" as a value in it`)
		c.decisions(key+".confirm.decision_values", f.DecisionValues)
		c.retry(key+".confirm.retry", f.Retry)
	}
	if l := a.LockCard; l != nil {
		c.path(key+".lock_card.path", l.Path)
		c.body(key+".lock_card.body", l.Body)
		c.require(len(l.Body) > 0, key+".lock_card.body", "missing", `a mapping such as {card_id: "$card_id", status: LOCKED}`)
	}
}

func (c *checker) timeout(key string, d time.Duration) {
	c.require(0 < d && d <= time.Minute, key, "out of range", "above zero, at most 60s")
}

var urlPath = regexp.MustCompile(`^/(?:[^/\s#][^\s#]*)?$`)

func (c *checker) path(key, path string) {
	c.require(urlPath.MatchString(path), key, "missing, or not a path", "a path that begins with one /, such as /card/3ds_confirm")
}

func (c *checker) decisions(key string, v DecisionValues) {
	const allowed = "two different JSON values, such as {approve: 2, reject: 3}"
	c.require(v.Approve != nil, key+".approve", "missing", allowed)
	c.require(v.Reject != nil, key+".reject", "missing", allowed)
	if v.Approve == nil || v.Reject == nil {
		return
	}
	approve, err1 := json.Marshal(v.Approve)
	reject, err2 := json.Marshal(v.Reject)
	c.require(err1 == nil && err2 == nil && string(approve) != string(reject), key, "approve and reject are the same", allowed)
}

var (
	placeholders = []string{"$card_id", "$user_id", "$reference", "$challenge_id"}
	payloadPath  = regexp.MustCompile(`^\$payload(?:\.[^.\s$]+)+$`)
	dollarName   = regexp.MustCompile(`\$[A-Za-z_]\w*(?:\.[^.\s$]+)*`)
)

// body checks the placeholders in every text of a body template; further ones
// are allowed beside the common. It tells whether one of the further is used.
func (c *checker) body(key string, value any, further ...string) (used bool) {
	switch value := value.(type) {
	case map[string]any:
		for name, v := range value {
			used = c.body(join(key, name), v, further...) || used
		}
	case []any:
		for i, v := range value {
			used = c.body(item(key, i), v, further...) || used
		}
	case string:
		for _, name := range dollarName.FindAllString(value, -1) {
			asked := slices.Contains(further, name)
			used = used || asked
			c.require(asked || slices.Contains(placeholders, name) || payloadPath.MatchString(name), key, "has an unknown placeholder",
				strings.Join(append(slices.Clone(placeholders), further...), ", ")+", $payload.any.path")
		}
	}
	return used
}
