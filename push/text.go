package push

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// text is the notification's title and body. A one-time code is never in it.
func (n Notice) text() (title, body string) {
	t, payee := textsFor(n.Lang), clean(n.Payee, 80)
	switch {
	case n.Phase == Blocked && n.Minimal:
		return t.blocked, t.line()
	case n.Phase == Blocked:
		return t.blocked, t.line(n.amount(), payee, n.card(t))
	case n.Phase == Ended && n.Minimal:
		return t.ended(n.Status), t.line()
	case n.Phase == Ended:
		return t.ended(n.Status), t.line(n.amount(), payee, n.card(t))
	case n.Minimal:
		return n.minimalTitle(t), t.line()
	}
	return n.announceTitle(t), t.line(payee, n.card(t))
}

func (n Notice) announceTitle(t texts) string {
	amount, wallet := n.amount(), walletName(n.Wallet)
	verification := n.Kind == "card_verification"
	switch {
	case n.Method == "otp" && verification && wallet != "":
		return with(t.codeFor, wallet)
	case n.Method == "otp" && amount != "":
		return with(t.codeFor, amount)
	case n.Method == "url" && verification && wallet != "":
		return with(t.confirmCardFor, wallet)
	case n.Method == "url" && amount != "":
		return with(t.confirm, amount)
	case n.Method != "otp" && n.Method != "url" && amount != "":
		return with(t.approve, amount)
	}
	return n.minimalTitle(t)
}

func with(text, what string) string { return strings.Replace(text, "%s", what, 1) }

func (n Notice) minimalTitle(t texts) string {
	switch {
	case n.Method == "otp":
		return t.code
	case n.Kind == "card_verification":
		return t.confirmCard
	case n.Method == "url":
		return t.confirmPayment
	}
	return t.approvePayment
}

func (t texts) ended(status string) string {
	switch status {
	case "approved":
		return t.approved
	case "rejected":
		return t.rejected
	case "expired":
		return t.expired
	case "completed":
		return t.completed
	case "cancelled":
		return t.cancelled
	case "failed":
		return t.failed
	}
	return t.answered
}

// amount is "100.20 USD". One that is too long to be shown whole is left out: half
// an amount would mislead whoever approves it.
func (n Notice) amount() string {
	const limit = 40
	if utf8.RuneCountInString(n.Amount)+utf8.RuneCountInString(n.Currency) > limit || n.Amount == "" {
		return ""
	}
	return clean(n.Amount+" "+n.Currency, limit+1)
}

const cardDots = " ····"

// card names the card by four digits; anything else in the field is not shown.
func (n Notice) card(t texts) string {
	if len(n.Last4) != 4 || strings.Trim(n.Last4, "0123456789") != "" {
		return ""
	}
	return t.card + cardDots + n.Last4
}

// walletName spells the wallets people know; others appear as the issuer names them.
func walletName(s string) string {
	s = clean(s, 40)
	switch strings.NewReplacer(" ", "", "_", "", "-", "").Replace(strings.ToLower(s)) {
	case "googlepay":
		return "Google Pay"
	case "applepay":
		return "Apple Pay"
	case "samsungpay":
		return "Samsung Pay"
	}
	return s
}

// line is a body of the parts that are not empty.
func (t texts) line(parts ...string) string {
	parts = slices.DeleteFunc(parts, func(p string) bool { return p == "" })
	if len(parts) == 0 {
		return t.open
	}
	if strings.HasPrefix(parts[0], t.card+cardDots) {
		first, size := utf8.DecodeRuneInString(parts[0])
		parts[0] = string(unicode.ToUpper(first)) + parts[0][size:]
	}
	return strings.Join(parts, " · ")
}

// clean makes foreign text fit for one line of a notification: no control
// characters, no invisible ones, no direction overrides that make a text read
// otherwise than it is (Unicode UAX #9), at most limit characters.
func clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	s = strings.Join(strings.Fields(s), " ")
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	return strings.TrimSpace(string([]rune(s)[:limit-1])) + "…"
}
