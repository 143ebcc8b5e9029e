package relay

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const (
	maxIDBytes   = 256
	maxTextBytes = 256
	maxURLBytes  = 2048
)

// Mapping tells where our fields stand in a decrypted payload: for each field
// name a list of dotted paths, tried in order; the first acceptable value wins.
type Mapping map[string][]string

// DefaultMapping is a new copy of the lists that fit the known issuers. Its keys
// are all the field names there are.
func DefaultMapping() Mapping {
	return Mapping{
		"card_id":   {"card_id", "cardId", "card_token", "cardHashId", "userBankcardId", "cardNo"},
		"user_id":   {"user_id", "userId", "customer_id", "uid"},
		"reference": {"reference_code", "referenceCode", "authId", "auth_id", "transactionReference", "tradeNo", "transaction_id", "originTradeNo", "eventId", "event_id", "id"},
		"otp":       {"otp", "validation_value", "activationCode", "values", "code"},
		"url":       {"auth_url", "values"},
		"payee":     {"merchant_name", "merchantName", "merchant.name", "detail"},
		"country":   {"merchant_country_code", "merchant.countryCode", "merchant_country"},
		"amount":    {"amount", "transaction_amount", "transactionAmount", "transaction.amount"},
		"currency":  {"currency", "transaction_currency", "transactionCurrency", "transaction.currency"},
		"last4":     {"card_number", "cardNumber", "card_pan", "cardNo"},
		"wallet":    {"walletProvider", "wallet_provider"},
		"status":    {"status"},
		"occurred":  {"occur_time", "transactionTime", "createAt", "created_seconds", "transaction.timestamp", "timestamp"},
		"expires":   {"expirationTime", "expires_at", "expiresAt", "expiry_time"},
	}
}

// With returns a copy of m in which each field named in override has that list
// instead of its own; an empty list switches the field off.
func (m Mapping) With(override map[string][]string) Mapping {
	next := maps.Clone(m)
	for field, paths := range override {
		next[field] = slices.Clone(paths)
	}
	return next
}

// Read takes the fields out of a payload. When the payload has an object named
// data, all paths of a field are tried in it first, then at the top. The lists
// of amount and currency, if of equal length, are first tried as pairs, so that
// an amount is not shown in the currency of another one.
func (m Mapping) Read(p map[string]any) Fields {
	s := source{m, payloadRoots(p)}
	f := Fields{
		CardID:    firstOf(s, "card_id", acceptCardID),
		UserID:    firstOf(s, "user_id", acceptID),
		Reference: firstOf(s, "reference", acceptID),
		OTP:       firstOf(s, "otp", acceptOTP),
		URL:       firstOf(s, "url", acceptURL),
		Country:   firstOf(s, "country", acceptCountry),
		Wallet:    firstOf(s, "wallet", acceptWallet),
		Status:    firstOf(s, "status", acceptText),
		Occurred:  firstOf(s, "occurred", acceptTime),
		Expires:   firstOf(s, "expires", acceptTime),
	}
	f.Amount, f.Currency = s.money()
	f.Last4 = firstOf(s, "last4", func(v any) (string, bool) { return acceptLast4(v, f.CardID) })
	if f.Last4 == "" && LooksLikePAN(f.CardID) {
		f.Last4 = lastFour(f.CardID)
	}
	// The payee goes on lock screens, and is free text of the shop or, under
	// "detail", of the issuer: it may hold the very code.
	f.Payee = ScrubText(firstOf(s, "payee", acceptText), f.OTP, f.URL)
	return f
}

// Fields is what the mapping reads out of a decrypted payload; zero values where
// nothing acceptable is found. It holds a code and a link, and CardID may be a
// full card number: printed, logged or marshalled it shows none of them.
type Fields struct {
	CardID, UserID, Reference string // at most 256 bytes, no control characters
	OTP                       string // 4 to 10 ASCII letters or digits
	URL                       string // an http or https link with a host, at most 2048 bytes
	Payee                     string // one line, without card numbers, the code or the link
	Country                   string // ISO 3166-1 alpha-2
	Amount                    string // plain decimal, scale as sent
	Currency                  string // ISO 4217 alphabetic
	Last4                     string
	Wallet                    string // in snake_case
	Status                    string
	Occurred, Expires         time.Time // UTC, years 2000 to 2100
}

// Failed tells whether the status is one of a failure, in any case and inside of
// longer names: FAIL, CARD_ASSIGN_FAILED, Rejected, declined, ERROR. Such an
// event does not teach who owns a card.
func (f Fields) Failed() bool {
	status := strings.ToUpper(f.Status)
	return slices.ContainsFunc(failures, func(word string) bool { return strings.Contains(status, word) })
}

var failures = []string{"FAIL", "REJECT", "DECLIN", "DENIED", "ERROR", "CANCEL", "INVALID", "UNSUCCESS", "ABORT", "TIMEOUT"}

// shownFields has the same fields and no methods.
type shownFields Fields

func (f Fields) redacted() shownFields {
	f.CardID, f.Reference, f.UserID = maskPANs(f.CardID), maskPANs(f.Reference), maskPANs(f.UserID)
	if f.OTP != "" {
		f.OTP = removed
	}
	if f.URL != "" {
		f.URL = removed
	}
	return shownFields(f)
}

// String is the fields without code, link and card numbers.
func (f Fields) String() string { return fmt.Sprintf("%+v", f.redacted()) }

// Format prints String whatever the verb.
func (f Fields) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, f.String()) }

// MarshalJSON is the fields without code, link and card numbers.
func (f Fields) MarshalJSON() ([]byte, error) { return json.Marshal(f.redacted()) }

// LogValue is String.
func (f Fields) LogValue() slog.Value { return slog.StringValue(f.String()) }

// source is a payload with the mapping it is read through.
type source struct {
	m     Mapping
	roots []map[string]any
}

func payloadRoots(p map[string]any) []map[string]any {
	if data, ok := p["data"].(map[string]any); ok {
		return []map[string]any{data, p}
	}
	return []map[string]any{p}
}

func firstOf[T any](s source, field string, accept func(any) (T, bool)) T {
	for _, root := range s.roots {
		for _, path := range s.m[field] {
			if v, ok := accept(valueAt(root, path)); ok {
				return v
			}
		}
	}
	var none T
	return none
}

func (s source) money() (amount, currency string) {
	amounts, currencies := s.m["amount"], s.m["currency"]
	if len(amounts) == len(currencies) {
		for _, root := range s.roots {
			for i := range amounts {
				a, okA := acceptAmount(valueAt(root, amounts[i]))
				c, okC := acceptCurrency(valueAt(root, currencies[i]))
				if okA && okC {
					return a, c
				}
			}
		}
	}
	return firstOf(s, "amount", acceptAmount), firstOf(s, "currency", acceptCurrency)
}

// valueAt follows a dotted path through objects; nil if it leads nowhere.
func valueAt(o map[string]any, path string) any {
	for {
		key, rest, more := strings.Cut(path, ".")
		if !more {
			return o[key]
		}
		next, ok := o[key].(map[string]any)
		if !ok {
			return nil
		}
		o, path = next, rest
	}
}

// scalar is the text of a non-empty string, trimmed, or of a number.
func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		s := strings.TrimSpace(v)
		return s, s != ""
	case json.Number:
		return numberText(v)
	}
	return "", false
}

// numberText writes a number as an id is written: 67890.0 and 6.789e4 are
// 67890. Digits are never lost; a number whose plain form is long is refused.
func numberText(n json.Number) (string, bool) {
	if len(n) <= maxLiteral && allDigits(string(n)) {
		return string(n), true
	}
	d, ok := decimal(string(n))
	if !ok {
		return "", false
	}
	text := d.Text('f')
	whole, fraction, _ := strings.Cut(text, ".")
	if strings.Trim(fraction, "0") == "" {
		text = whole
	}
	return text, len(text) <= maxLiteral
}

// acceptID refuses what the decoder had to replace, too: by that different ids would
// become one.
func acceptID(v any) (string, bool) {
	s, ok := scalar(v)
	if !ok || len(s) > maxIDBytes || strings.ContainsFunc(s, unicode.IsControl) || strings.ContainsRune(s, unicode.ReplacementChar) {
		return "", false
	}
	return s, true
}

// acceptCardID refuses masked card numbers: many cards share one, and its owner
// would see the challenges of the others.
func acceptCardID(v any) (string, bool) {
	s, ok := acceptID(v)
	return s, ok && !isMaskedPAN(s)
}

// isMaskedPAN tells a masked card number from an id. The letter x masks only
// among digits, and 0x begins a hexadecimal id.
func isMaskedPAN(s string) bool {
	if strings.ContainsAny(s, "*•●·") {
		return true
	}
	s = strings.ToLower(withoutSeparators(s))
	return strings.Contains(s, "x") && strings.Trim(s, "0123456789x") == "" && !strings.HasPrefix(s, "0x")
}

// acceptLast4 reads the end of a masked or full card number, or four digits on
// their own, if they are not merely the card's id.
func acceptLast4(v any, cardID string) (string, bool) {
	s, ok := scalar(v)
	if !ok {
		return "", false
	}
	if !isMaskedPAN(s) && !LooksLikePAN(s) && (len(s) != 4 || s == cardID) {
		return "", false
	}
	last := lastFour(s)
	return last, len(last) == 4 && allDigits(last)
}

func lastFour(s string) string {
	s = withoutSeparators(s)
	return s[max(0, len(s)-4):]
}

// acceptOTP wants 4 to 10 ASCII letters or digits.
func acceptOTP(v any) (string, bool) {
	s, ok := scalar(v)
	if !ok || len(s) < 4 || len(s) > 10 {
		return "", false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return "", false
		}
	}
	return s, true
}

func acceptURL(v any) (string, bool) {
	s, ok := v.(string)
	s = strings.TrimSpace(s)
	if !ok || len(s) > maxURLBytes {
		return "", false
	}
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Hostname() == "" {
		return "", false
	}
	return s, true
}

// acceptText cleans free text for the screen: one line, without the characters
// that turn the direction of writing (UAX #9) and so could disguise a payee.
func acceptText(v any) (string, bool) {
	s, ok := scalar(v)
	if !ok {
		return "", false
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.Is(unicode.Bidi_Control, r):
			return -1
		case unicode.IsControl(r):
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxTextBytes {
		s = strings.ToValidUTF8(s[:maxTextBytes], "")
	}
	return s, s != ""
}

func acceptAmount(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return NormalizeAmount(v)
	case json.Number:
		return NormalizeAmount(string(v)) // not numberText: 50.00 keeps its scale
	}
	return "", false
}

func acceptCurrency(v any) (string, bool) {
	s, _ := scalar(v)
	return NormalizeCurrency(s)
}

func acceptCountry(v any) (string, bool) {
	s, _ := scalar(v)
	return NormalizeCountry(s)
}

// acceptWallet writes a provider's name in lower case with underscores:
// googlePay, Google Pay and GOOGLE-PAY are google_pay. It is shown and stored in
// clear, so that a card number is not taken for one.
func acceptWallet(v any) (string, bool) {
	s, ok := scalar(v)
	if !ok || len(s) > maxIDBytes || maskPANs(s) != s {
		return "", false
	}
	var b strings.Builder
	wasLower := false
	for _, r := range s {
		switch isWord := unicode.IsLetter(r) || unicode.IsDigit(r); {
		case !isWord:
			b.WriteByte(' ')
		case unicode.IsUpper(r) && wasLower:
			b.WriteByte(' ')
			fallthrough
		default:
			b.WriteRune(unicode.ToLower(r))
		}
		wasLower = unicode.IsLower(r) || unicode.IsDigit(r)
	}
	name := strings.Join(strings.Fields(b.String()), "_")
	return name, name != ""
}

// acceptTime reads a time and refuses what is not of the years 2000 to 2100: a
// duration, a card's expiry, a zero.
func acceptTime(v any) (time.Time, bool) {
	s, ok := scalar(v)
	if !ok {
		return time.Time{}, false
	}
	t, ok := unixTime(s)
	if !ok {
		t, ok = writtenTime(s)
	}
	return t, ok && t.Year() >= 2000 && t.Year() <= 2100
}

// unixTime reads a count since 1970, whole or with a fraction. Its magnitude
// tells the unit: the years 2000 to 2100 do not overlap in seconds,
// milliseconds, microseconds and nanoseconds.
func unixTime(s string) (time.Time, bool) {
	whole, fraction, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n < 0 || !allDigits(fraction) {
		return time.Time{}, false
	}
	var t time.Time
	var unit time.Duration
	switch {
	case n < 1e11:
		t, unit = time.Unix(n, 0), time.Second
	case n < 1e14:
		t, unit = time.UnixMilli(n), time.Millisecond
	case n < 1e17:
		t, unit = time.UnixMicro(n), time.Microsecond
	default:
		t, unit = time.Unix(0, n), time.Nanosecond
	}
	billionths, err := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	part := time.Duration(billionths) * unit / time.Second
	return t.Add(part).UTC(), true
}

// writtenTime reads RFC 3339 and its common relatives; without a zone it is UTC.
func writtenTime(s string) (time.Time, bool) {
	for _, layout := range []string{
		time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02 15:04:05Z07:00",
		"2006-01-02T15:04:05", time.DateTime,
	} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}
