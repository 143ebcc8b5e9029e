package relay

import (
	"strings"
	"sync"

	"github.com/bojanz/currency"
	"github.com/cockroachdb/apd/v3"
	"golang.org/x/text/language"
)

const (
	maxAmountDigits = 30
	maxLiteral      = 256 // bytes of a number's text; longer ones are no amount, id or time
	maxExponent     = 64  // beyond it a short literal would expand to a long text
)

// decimal parses a finite decimal in plain or exponent form. What it accepts
// is short and expands to a short text, so it is safe on hostile input.
func decimal(s string) (*apd.Decimal, bool) {
	if len(s) > maxLiteral || strings.Trim(s, "0123456789.eE+-") != "" {
		return nil, false
	}
	d, _, err := apd.NewFromString(s)
	if err != nil || d.Exponent < -maxExponent || d.Exponent > maxExponent {
		return nil, false
	}
	if d.IsZero() && d.Exponent > 0 {
		d.Exponent = 0 // apd would write 0e2 as 000
	}
	return d, true
}

// NormalizeAmount turns the text of a non-negative decimal into its plain
// form: "1e2" becomes "100", "007.50" becomes "7.50". It never rescales, so
// "100.20" stays as it is. It is false for anything else, and for more than
// 30 digits.
func NormalizeAmount(s string) (string, bool) {
	d, ok := decimal(strings.TrimSpace(s))
	if !ok || d.Negative {
		return "", false
	}
	text := d.Text('f')
	return text, len(strings.Replace(text, ".", "", 1)) <= maxAmountDigits
}

// SameAmount compares two amounts as decimals: 50 is 50.00. What is not an
// amount is the same as nothing, not even as itself.
func SameAmount(a, b string) bool {
	order, ok := compareAmounts(a, b)
	return ok && order == 0
}

// compareAmounts orders two amounts as decimals; false if one of them is none.
func compareAmounts(a, b string) (order int, ok bool) {
	x, okX := NormalizeAmount(a)
	y, okY := NormalizeAmount(b)
	if !okX || !okY {
		return 0, false
	}
	p, okP := decimal(x)
	q, okQ := decimal(y)
	if !okP || !okQ {
		return 0, false
	}
	return p.Cmp(q), true
}

// currencies finds the alphabetic code of a numeric one (ISO 4217).
var currencies = sync.OnceValue(func() map[string]string {
	byNumber := make(map[string]string)
	for _, code := range currency.GetCurrencyCodes() {
		if n, ok := currency.GetNumericCode(code); ok {
			byNumber[n] = code
		}
	}
	return byNumber
})

// NormalizeCurrency turns an ISO 4217 code, alphabetic in any case or numeric
// with or without its leading zeros, into the alphabetic code. It is false for
// what is not a currency in use.
func NormalizeCurrency(s string) (string, bool) {
	s = strings.TrimSpace(s)
	if n, ok := threeDigits(s); ok {
		code, found := currencies()[n]
		return code, found
	}
	code := strings.ToUpper(s)
	if code == "" || !currency.IsValid(code) {
		return "", false
	}
	return code, true
}

// NormalizeCountry turns an ISO 3166-1 code, alpha-2 or alpha-3 in any case or
// numeric with or without its leading zeros, into alpha-2. It is false for
// regions that are not countries, for reserved and for withdrawn codes, except
// that the common UK is read as GB.
func NormalizeCountry(s string) (string, bool) {
	s = strings.ToUpper(strings.TrimSpace(s))
	if n, ok := threeDigits(s); ok {
		s = n
	}
	if s == "UK" {
		s = "GB"
	}
	r, err := language.ParseRegion(s)
	if err != nil || !r.IsCountry() || r.Canonicalize() != r {
		return "", false
	}
	// Reserved codes (AC, EZ) have no M.49 number, the user-assigned XK has one
	// of the private range.
	if n := r.M49(); n == 0 || n >= 900 {
		return "", false
	}
	switch code := r.String(); code {
	case "AN", "CS", "NT", "SU", "YU": // withdrawn, and without one successor
		return "", false
	default:
		return code, true
	}
}

// threeDigits pads a numeric code: "36" is "036".
func threeDigits(s string) (string, bool) {
	if s == "" || len(s) > 3 || !allDigits(s) {
		return "", false
	}
	return "000"[len(s):] + s, true
}

func allDigits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
