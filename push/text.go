package push

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// text is the notification's title and body. A one-time code is never in it.
func (n Notice) text() (title, body string) {
	payee := clean(n.Payee, 80)
	switch {
	case n.Phase == Ended && n.Minimal:
		return endedTitle(n.Status), line()
	case n.Phase == Ended:
		return endedTitle(n.Status), line(n.amount(), payee, n.card())
	case n.Minimal:
		return n.minimalTitle(), line()
	}
	return n.announceTitle(), line(payee, n.card())
}

func (n Notice) announceTitle() string {
	amount, wallet := n.amount(), walletName(n.Wallet)
	verification := n.Kind == "card_verification"
	switch {
	case n.Method == "otp" && verification && wallet != "":
		return "Your code for " + wallet + " is ready"
	case n.Method == "otp" && amount != "":
		return "Your code for " + amount + " is ready"
	case n.Method == "otp":
		return "Your code is ready"
	case n.Method == "url" && verification && wallet != "":
		return "Confirm your card for " + wallet
	case n.Method == "url" && amount != "":
		return "Confirm " + amount
	case n.Method == "url":
		return n.minimalTitle()
	case amount != "":
		return "Approve " + amount + "?"
	}
	return n.minimalTitle()
}

func (n Notice) minimalTitle() string {
	switch {
	case n.Method == "otp":
		return "Your code is ready"
	case n.Kind == "card_verification":
		return "Card confirmation needed"
	case n.Method == "url":
		return "Payment confirmation needed"
	}
	return "Payment approval needed"
}

func endedTitle(status string) string {
	switch status {
	case "approved":
		return "Approved"
	case "rejected":
		return "Rejected"
	case "expired":
		return "Expired"
	case "completed":
		return "Completed"
	case "cancelled":
		return "Cancelled"
	case "failed":
		return "Could not be confirmed"
	}
	return "Already answered"
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

// card names the card by four digits; anything else in the field is not shown.
func (n Notice) card() string {
	if len(n.Last4) != 4 || strings.Trim(n.Last4, "0123456789") != "" {
		return ""
	}
	return "card ····" + n.Last4
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
func line(parts ...string) string {
	parts = slices.DeleteFunc(parts, func(p string) bool { return p == "" })
	if len(parts) == 0 {
		return "Open to see it"
	}
	if strings.HasPrefix(parts[0], "card ····") {
		parts[0] = "C" + parts[0][1:]
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
