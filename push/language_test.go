package push

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode"
)

func TestLanguage(t *testing.T) {
	t.Parallel()
	for tag, want := range map[string]string{
		"": "en", "en": "en", "en-GB": "en", "de": "de", "DE-at": "de", "fr-CA": "fr", "es-419": "es", "zh-Hant-TW": "zh",
		"pt-BR": "en", "den": "en", "x-de": "en", "-": "en", "de_AT": "en",
	} {
		if got := Language(tag); got != want {
			t.Errorf("Language(%q) = %q, want %q", tag, got, want)
		}
	}
}

// TestEveryLanguageHasEveryText: none is missing, blank or invisible, and those
// with a place for something have exactly one.
func TestEveryLanguageHasEveryText(t *testing.T) {
	t.Parallel()
	places := map[string]int{"approve": 1, "confirm": 1, "codeFor": 1, "confirmCardFor": 1}
	seen := map[string]string{}
	for lang, words := range languages {
		v := reflect.ValueOf(words)
		for i := range v.NumField() {
			name, text := v.Type().Field(i).Name, v.Field(i).String()
			if strings.TrimSpace(text) != text || text == "" || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%s: %s is %q", lang, name, text)
			}
			if strings.Count(text, "%s") != places[name] || strings.Count(text, "%") != places[name] {
				t.Errorf("%s: %s has the wrong places: %q", lang, name, text)
			}
			if name == "activationTitle" || name == "approvePayment" {
				if other, taken := seen[text]; taken {
					t.Errorf("%s has a text of %s: %q", lang, other, text)
				}
				seen[text] = lang
			}
		}
	}
	for _, lang := range []string{"en", "de", "fr", "es", "zh"} {
		if _, ok := languages[lang]; !ok {
			t.Errorf("%s is missing", lang)
		}
	}
}

func TestNotificationTextInOtherLanguages(t *testing.T) {
	t.Parallel()
	ended := announced
	ended.Phase, ended.Status, ended.Payee = Ended, "failed", ""
	wallet := Notice{Kind: "card_verification", Method: "otp", Wallet: "googlePay", Last4: "4242"}
	for _, c := range []struct {
		lang        string
		n           Notice
		title, body string
	}{
		{"de", announced, "100.20 USD freigeben?", "Sephora Digital · Karte ····4242"},
		{"de", wallet, "Ihr Code für Google Pay ist da", "Karte ····4242"},
		{"de", ended, "Konnte nicht bestätigt werden", "100.20 USD · Karte ····4242"},
		{"fr", announced, "Approuver 100.20 USD ?", "Sephora Digital · carte ····4242"},
		{"fr", wallet, "Votre code pour Google Pay est prêt", "Carte ····4242"},
		{"fr", ended, "Confirmation impossible", "100.20 USD · carte ····4242"},
		{"es", announced, "¿Aprobar 100.20 USD?", "Sephora Digital · tarjeta ····4242"},
		{"es", wallet, "Su código para Google Pay está listo", "Tarjeta ····4242"},
		{"es", ended, "No se pudo confirmar", "100.20 USD · tarjeta ····4242"},
		{"zh", announced, "批准 100.20 USD？", "Sephora Digital · 银行卡 ····4242"},
		{"zh", wallet, "Google Pay 的验证码已就绪", "银行卡 ····4242"},
		{"zh", ended, "未能确认", "100.20 USD · 银行卡 ····4242"},
	} {
		c.n.Lang = c.lang
		title, body := c.n.text()
		if title != c.title || body != c.body {
			t.Errorf("%s: %q / %q, want %q / %q", c.lang, title, body, c.title, c.body)
		}
	}
}

// everyNotice calls f with a notice of each kind, method, phase and privacy, in
// the language.
func everyNotice(lang string, n Notice, f func(Notice)) {
	n.Lang = lang
	for _, n.Kind = range []string{"three_ds", "card_verification"} {
		for _, n.Method = range []string{"approve", "otp", "url"} {
			for _, n.Minimal = range []bool{false, true} {
				n.Phase, n.Status = Announce, "pending"
				f(n)
				for _, n.Status = range []string{"approved", "rejected", "expired", "completed", "cancelled", "failed", "confirming"} {
					n.Phase = Ended
					f(n)
				}
			}
		}
	}
}

// TestNoSecretInAnyLanguage: the lock screen shows no code and no full card
// number, and with minimal privacy nothing of the payment; the payload says its
// language and fits.
func TestNoSecretInAnyLanguage(t *testing.T) {
	t.Parallel()
	n := announced
	n.OTP, n.Last4, n.Wallet = "045435", "4242424242424242", "Garmin Pay"
	for lang := range languages {
		everyNotice(lang, n, func(n Notice) {
			payload := n.Payload(true)
			var p body
			if err := json.Unmarshal(payload, &p); err != nil || len(payload) > MaxPayload {
				t.Fatalf("%s: %d bytes, %v", lang, len(payload), err)
			}
			if p.Notification.Lang != lang || p.Notification.Dir != "ltr" {
				t.Errorf("%s: the payload says %q %q", lang, p.Notification.Lang, p.Notification.Dir)
			}
			visible := p.Notification.Title + " " + p.Notification.Body
			hidden := []string{"045435", "4242", "%"}
			if n.Minimal {
				hidden = append(hidden, "100", "USD", "Sephora", "Garmin")
			}
			for _, secret := range hidden {
				if strings.Contains(visible, secret) {
					t.Errorf("%s, minimal %v: %q shows %q", lang, n.Minimal, visible, secret)
				}
			}
		})
	}
}

// TestLongestTextsFit: whatever the language, the longest texts there can be do
// not cost the device its token.
func TestLongestTextsFit(t *testing.T) {
	t.Parallel()
	n := announced
	n.Payee, n.Wallet, n.OTP = strings.Repeat("𝓢", 200), strings.Repeat("𝓦", 200), "0123456789"
	n.Amount, n.Currency = strings.Repeat("9", 37), "USD"
	n.ActionToken = strings.Repeat("t", 1000)
	for lang := range languages {
		everyNotice(lang, n, func(n Notice) {
			payload := string(n.Payload(true))
			if len(payload) > MaxPayload || n.Phase == Announce && (!strings.Contains(payload, n.ActionToken) || !strings.Contains(payload, n.OTP)) {
				t.Errorf("%s: %d bytes: %s", lang, len(payload), payload)
			}
		})
		for _, payload := range [][]byte{ActivationPayload("sub_1", "c0de", lang, n.PublicURL, true), TestPayload(lang, n.PublicURL, true)} {
			var p body
			if err := json.Unmarshal(payload, &p); err != nil || p.Notification.Lang != lang || len(payload) > MaxPayload {
				t.Errorf("%s: %s, %v", lang, payload, err)
			}
		}
	}
}
