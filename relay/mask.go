package relay

import (
	"encoding/json"
	"slices"
	"strings"
)

const (
	removed   = "[removed]"
	panMin    = 13 // digits of a primary account number, ISO/IEC 7812-1 and older cards
	panMax    = 19
	minSecret = 4
)

// LooksLikePAN tells whether s is a full card number: 13 to 19 digits, between
// which spaces and dashes may stand, with a valid check digit (Luhn, ISO/IEC
// 7812-1 annex B). One in ten random numbers of that length does.
func LooksLikePAN(s string) bool {
	digits := withoutSeparators(s)
	return len(digits) >= panMin && len(digits) <= panMax && allDigits(digits) && luhn(digits)
}

func withoutSeparators(s string) string { return separators.Replace(s) }

var separators = strings.NewReplacer(" ", "", "-", "")

// luhn checks the digits of s and passes over separators.
func luhn(s string) bool {
	sum, double := 0, false
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] < '0' || s[i] > '9' {
			continue
		}
		d := int(s[i] - '0')
		if double {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
		double = !double
	}
	return sum%10 == 0
}

// maskPANs replaces every card number in a text by "····" and its last four
// digits. Numbers that overlap are masked as one: digits before a card number
// can by chance make one up with its beginning, and it must not show for that.
func maskPANs(s string) string {
	groups := digitGroups(s)
	var spans []group
	for i := range groups {
		last, ok := panAt(s, groups[i:])
		if !ok {
			continue
		}
		span := group{groups[i].from, groups[i+last].to}
		if n := len(spans); n > 0 && span.from < spans[n-1].to {
			spans[n-1].to = max(spans[n-1].to, span.to)
		} else {
			spans = append(spans, span)
		}
	}
	if spans == nil {
		return s
	}
	var b strings.Builder
	done := 0
	for _, span := range spans {
		b.WriteString(s[done:span.from] + "····" + lastFour(s[span.from:span.to]))
		done = span.to
	}
	return b.String() + s[done:]
}

// group is a run of digits at s[from:to].
type group struct{ from, to int }

func digitGroups(s string) []group {
	var groups []group
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			continue
		}
		from := i
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		groups = append(groups, group{from, i})
	}
	return groups
}

// panAt looks for the longest card number that begins with the first group and
// ends with a whole one ("4111 1111 1111 1111 12/27" holds one). Windows inside
// of a group are not tried: nearly every long id has one that passes Luhn.
func panAt(s string, groups []group) (last int, ok bool) {
	digits := 0
	for j, g := range groups {
		if j > 0 && strings.Trim(s[groups[j-1].to:g.from], " -") != "" {
			break
		}
		if digits += g.to - g.from; digits > panMax {
			break
		}
		if digits >= panMin && luhn(s[groups[0].from:g.to]) {
			last, ok = j, true
		}
	}
	return last, ok
}

// ScrubText cleans the text of an outside party (an answer, an error) before it
// is stored: card numbers are masked, and each secret of at least four bytes is
// replaced by "[removed]".
func ScrubText(s string, secrets ...string) string {
	// A link may hold digits that masking would change, so that it would not be
	// found any more; a code may stand inside a card number and break it up. So
	// what is more than digits goes first, and digits go last.
	var codes, others []string
	for _, secret := range secrets {
		if allDigits(secret) {
			codes = append(codes, secret)
		} else {
			others = append(others, secret)
		}
	}
	return replaceSecrets(maskPANs(replaceSecrets(s, others)), codes)
}

func replaceSecrets(s string, secrets []string) string {
	var found []string
	for _, secret := range secrets {
		if len(secret) >= minSecret && strings.Contains(s, secret) {
			found = append(found, secret)
		}
	}
	if len(found) == 0 {
		return s
	}
	// The longest first: a secret that begins another must not leave its tail.
	slices.SortFunc(found, func(a, b string) int { return len(b) - len(a) })
	pairs := make([]string, 0, 2*len(found))
	for _, secret := range found {
		pairs = append(pairs, secret, removed)
	}
	return strings.NewReplacer(pairs...).Replace(s)
}

// secretKeys are the names under which Mask shows no value, in lower case and
// without underscores and dashes.
var secretKeys = map[string]bool{
	"otp": true, "otpcode": true, "smscode": true, "code": true, "onetimecode": true, "onetimepassword": true,
	"validationvalue": true, "verificationcode": true, "activationcode": true, "securitycode": true,
	"cvv": true, "cvv2": true, "cvc": true, "cvc2": true, "pin": true, "pinblock": true,
	"password": true, "secret": true, "clientsecret": true, "token": true, "accesstoken": true, "apikey": true,
	"authurl": true, "challengeurl": true, "track1": true, "track2": true, "trackdata": true,
}

var keyForm = strings.NewReplacer("_", "", "-", "")

func isSecretKey(key string) bool { return secretKeys[keyForm.Replace(strings.ToLower(key))] }

// Mask returns a deep copy of a payload for records and logs: the values under
// the otp and url paths of m and under names like otp, cvv, password or token
// are "[removed]", the code and the link are removed wherever else they stand,
// and every card number, also inside of longer text and in names, is reduced to
// its last four digits. A time in milliseconds under an occurred or expires path
// is kept, although one in ten has the form of a card number.
func Mask(m Mapping, p map[string]any) map[string]any {
	f := m.Read(p)
	secret := pathSet(m, "otp", "url")
	times := pathSet(m, "occurred", "expires")
	c := copier{
		secrets: []string{f.OTP, f.URL},
		pans:    true,
		at: func(path, key string, v any) (any, verdict) {
			switch {
			case v != nil && (secret[path] || isSecretKey(key)):
				return removed, replace
			case times[path] && isMillis(v):
				return v, replace
			}
			return nil, descend
		},
	}
	return c.object("", p)
}

// isMillis tells a time in milliseconds of the years 2001 to 2033 from a card
// number: none of 13 digits begins with 1.
func isMillis(v any) bool {
	s, ok := scalar(v)
	return ok && len(s) == 13 && s[0] == '1' && allDigits(s)
}

// WithoutCode returns a deep copy of a payload without the one-time code and
// the link, for downstream targets that do not get them: acceptable values
// under the otp and url paths of m are left out, and the code and the link that
// Read finds are replaced by "[removed]" in every other string and name that
// holds them and where a number equals them. All else, card numbers too, is kept.
func WithoutCode(m Mapping, p map[string]any) map[string]any {
	f := m.Read(p)
	otp, link := pathSet(m, "otp"), pathSet(m, "url")
	c := copier{
		secrets: []string{f.OTP, f.URL},
		at: func(path, _ string, v any) (any, verdict) {
			if _, ok := acceptOTP(v); ok && otp[path] {
				return nil, drop
			}
			if _, ok := acceptURL(v); ok && link[path] {
				return nil, drop
			}
			return nil, descend
		},
	}
	return c.object("", p)
}

// pathSet holds the paths of some fields from both roots.
func pathSet(m Mapping, fields ...string) map[string]bool {
	set := make(map[string]bool)
	for _, field := range fields {
		for _, path := range m[field] {
			set[path] = true
			set["data."+path] = true
		}
	}
	return set
}

// verdict is what a copier does with a member of an object.
type verdict int

const (
	descend verdict = iota // copy it, with its texts changed
	replace                // take the given value as it is
	drop                   // leave the member out
)

// copier makes a deep copy of a payload, changed by its rules.
type copier struct {
	secrets []string // replaced in every string, name and number
	pans    bool     // card numbers too
	at      func(path, key string, v any) (any, verdict)
}

func (c copier) object(path string, o map[string]any) map[string]any {
	out := make(map[string]any, len(o))
	for k, v := range o {
		at := joinPath(path, k)
		switch given, what := c.at(at, k, v); what {
		case drop:
		case replace:
			out[c.text(k)] = given
		default:
			out[c.text(k)] = c.value(at, v)
		}
	}
	return out
}

func (c copier) value(path string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		return c.object(path, v)
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = c.value(path+"[]", e)
		}
		return out
	case string:
		return c.text(v)
	case json.Number:
		return c.number(v)
	}
	return v
}

func (c copier) text(s string) string {
	if c.pans {
		return ScrubText(s, c.secrets...)
	}
	return replaceSecrets(s, c.secrets)
}

// number compares secrets with the whole number only: a short code stands by
// chance inside of many times and ids.
func (c copier) number(n json.Number) any {
	text, ok := numberText(n)
	if !ok {
		text = string(n)
	}
	if slices.Contains(c.secrets, text) {
		return removed
	}
	if !c.pans {
		return n
	}
	for _, s := range []string{text, string(n)} {
		if maskPANs(s) != s {
			return c.text(s) // what is left of it may be the code
		}
	}
	return n
}
