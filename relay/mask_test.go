package relay

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"unicode"
)

func TestLooksLikePAN(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"4111111111111111": true, "4111 1111 1111 1111": true, "4111-1111-1111-1111": true, " 4111111111111111 ": true,
		"4222222222222": true, "378282246310005": true, "6304000000000000000": true, // 13, 15 and 19 digits
		"4111111111111112": false, "411111111111": false, "41111111111111111111": false, "4111********1111": false,
		"": false, "4111.1111.1111.1111": false, "４１１１１１１１１１１１１１１１": false, "x4111111111111111": false,
	} {
		if got := LooksLikePAN(s); got != want {
			t.Errorf("LooksLikePAN(%q) = %v", s, got)
		}
	}
}

func TestScrubText(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in      string
		secrets []string
		want    string
	}{
		{"card 4111111111111111 refused", nil, "card ····1111 refused"},
		{"id4111-1111 1111-1111.", nil, "id····1111."},
		{"4111111111111111 12/27", nil, "····1111 12/27"},
		{"12 4111111111111111", nil, "12 ····1111"},
		{"4111111111111111 4222222222222", nil, "····1111 ····2222"},
		{"4111111111111111=2712101123", nil, "····1111=2712101123"},
		{"order 4111222230004 5555 5555 5555 4444", nil, "order ····4444"}, // the order and 5555 pass Luhn, too
		{"order 4111111111111112 of 2026-11-18 00:26", nil, "order 4111111111111112 of 2026-11-18 00:26"},
		{"code 045435, again 045435", []string{"045435"}, "code [removed], again [removed]"},
		{"045435 and 0454", []string{"0454", "045435"}, "[removed] and [removed]"},
		{"otp 123 is kept", []string{"123", ""}, "otp 123 is kept"},
		{"4111111111111111 1111", []string{"1111"}, "····[removed] [removed]"},
		{"4111123456001112", []string{"123456"}, "····1112"},
		{"https://acs.example/4111111111111111?a", []string{"https://acs.example/4111111111111111"}, "[removed]?a"},
		{"[removed]", []string{"remo", "removed"}, "[[removed]]"},
	} {
		if got := ScrubText(tc.in, tc.secrets...); got != tc.want {
			t.Errorf("ScrubText(%q, %q) = %q, want %q", tc.in, tc.secrets, got, tc.want)
		}
	}
}

func TestMask(t *testing.T) {
	t.Parallel()
	m := DefaultMapping().With(map[string][]string{"otp": {"otp", "proof.value"}})
	in := `{"otp":"045435","proof":{"value":"x","kind":"sms"},"values":"998877","note":"your code is 045435",
		"card_number":"4111111111111111","pan":4111111111111111,"list":["5555 5555 5555 4444",{"CVV":123,"pin":"12"}],
		"4111111111111111":1,"card_token":"12398711482","Activation-Code":"777777","auth_url":"https://a.example/x","code":null,
		"occur_time":1795000000004,"other_time":1795000000004,"amount":12.50,"ok":true,"raw":"{\"otp\":\"045435\"}","n":45435}`
	p := mustParse(t, in)
	before := string(Canonical(p))
	want := `{"otp":"[removed]","proof":{"value":"[removed]","kind":"sms"},"values":"[removed]","note":"your code is [removed]",
		"card_number":"····1111","pan":"····1111","list":["····4444",{"CVV":"[removed]","pin":"[removed]"}],
		"····1111":1,"card_token":"12398711482","Activation-Code":"[removed]","auth_url":"[removed]","code":null,
		"occur_time":1795000000004,"other_time":"····0004","amount":12.50,"ok":true,"raw":"{\"otp\":\"[removed]\"}","n":45435}`
	assertPayload(t, Mask(m, p), want)
	if string(Canonical(p)) != before {
		t.Error("Mask changed its input")
	}
	assertPayload(t, Mask(DefaultMapping(), mustParse(t, `{"data":{"values":"998877","n":998877}}`)), `{"data":{"values":"[removed]","n":"[removed]"}}`)
}

func TestWithoutCode(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, in, want string }{
		{"code", `{"otp":"045435","card_id":1,"card_number":"4111111111111111"}`, `{"card_id":1,"card_number":"4111111111111111"}`},
		{"number", `{"otp":145435,"copy":145435,"near":1454350}`, `{"copy":"[removed]","near":1454350}`},
		{"every path", `{"otp":"111111","code":"222222","values":"333333"}`, `{}`},
		{"both roots", `{"otp":"111111","data":{"otp":"222222","a":1}}`, `{"data":{"a":1}}`},
		{"link", `{"values":"https://a.example/x?y=1","t":"go to https://a.example/x?y=1 now"}`, `{"t":"go to [removed] now"}`},
		{"not a code", `{"code":"254725c4-70d6-4527-8f5a-fbb324ef77d9","otp":null,"values":true}`, `{"code":"254725c4-70d6-4527-8f5a-fbb324ef77d9","otp":null,"values":true}`},
		{"copies", `{"otp":" 045435 ","a":["045435",{"b":"is 045435."}],"045435":"x","raw":"{\"o\":\"045435\"}"}`, `{"a":["[removed]",{"b":"is [removed]."}],"[removed]":"x","raw":"{\"o\":\"[removed]\"}"}`},
		{"nothing in it", `{"amount":1.50,"a":[]}`, `{"amount":1.50,"a":[]}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := mustParse(t, tc.in)
			before := string(Canonical(p))
			assertPayload(t, WithoutCode(DefaultMapping(), p), tc.want)
			if string(Canonical(p)) != before {
				t.Error("WithoutCode changed its input")
			}
		})
	}
}

func assertPayload(t *testing.T, got map[string]any, want string) {
	t.Helper()
	if g, w := string(Canonical(got)), string(Canonical(mustParse(t, want))); g != w {
		t.Errorf("got  %s\nwant %s", g, w)
	}
}

// scalars calls f with every name, string and number of a payload.
func scalars(v any, f func(string)) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			f(k)
			scalars(e, f)
		}
	case []any:
		for _, e := range v {
			scalars(e, f)
		}
	case string:
		f(v)
	case json.Number:
		f(string(v))
		if text, ok := numberText(v); ok {
			f(text)
		}
	}
}

// holdsPAN looks at whole runs of digits, written apart from maskPANs.
func holdsPAN(s string) bool {
	for _, run := range strings.FieldsFunc(s, func(r rune) bool { return r < '0' || r > '9' }) {
		if LooksLikePAN(run) {
			return true
		}
	}
	return LooksLikePAN(s)
}

// FuzzMapping: the fields have the form that they promise and come from the payload
// as they are; neither copy of a payload holds the code or the link that were found.
func FuzzMapping(f *testing.F) {
	for _, s := range []string{
		`{"otp":"045435","note":"045435","045435":[45435]}`, `{"otp":123456,"n":123456.0}`, `{"values":"https://a.example/1234","x":"https://a.example/1234"}`,
		`{"data":{"code":"1111","card_no":"4111111111111111"},"otp":"removed","a":"removed"}`, `{"a":"4111 1111 1111 1111 2222 3333 444","b":4.111111111111111e15}`,
		`{"data":{"data":{"otp":"123456"}},"merchant":{"name":"x"}}`, `{"occur_time":1795000000004,"expiresAt":"1795000000004"}`,
		`{"otp":"1111","n":4111111111111111,"m":4.111111111111111e15}`, `{"walletProvider":"4111 1111 1111 1111"}`, `{"walletProvider":4111111111111111}`, `{"amount":1e2,"currency":978,"merchant_name":"Shop 4111111111111111"}`,
		`{"transaction_amount":"0100.20","transaction_currency":"840","merchant_country_code":"840","cardNo":"4111********1111"}`,
	} {
		f.Add([]byte(s))
	}
	m := DefaultMapping()
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := ParsePayload(body)
		if err != nil {
			return
		}
		fields := m.Read(p)
		checkFields(t, p, fields)
		if again := m.Read(mustParse(t, string(Canonical(p)))); again != fields {
			t.Errorf("the canonical form reads as %#v, not as %#v", shownFields(again), shownFields(fields))
		}
		holdsSecret := func(s string) bool {
			s = strings.ReplaceAll(s, removed, "\x00")
			return fields.OTP != "" && strings.Contains(s, fields.OTP) || fields.URL != "" && strings.Contains(s, fields.URL)
		}
		masked, open := Mask(m, p), WithoutCode(m, p)
		for name, copied := range map[string]map[string]any{"Mask": masked, "WithoutCode": open} {
			texts(copied, func(s string) {
				if holdsSecret(s) {
					t.Errorf("%s left the code or the link in %q", name, s)
				}
			})
			scalars(copied, func(s string) { // a number that merely holds the digits is another number
				if s != "" && (s == fields.OTP || s == fields.URL) {
					t.Errorf("%s left %q", name, s)
				}
			})
			if left := m.Read(copied); left.OTP != "" || left.URL != "" {
				t.Errorf("%s left another code: %q", name, Canonical(copied))
			}
		}
		scalars(masked, func(s string) {
			if holdsPAN(s) && !isMillis(s) {
				t.Errorf("Mask left %q", s)
			}
		})
		for _, shape := range Describe(p) {
			if holdsPAN(shape.Path) {
				t.Errorf("Describe shows %q", shape.Path)
			}
		}
	})
}

// texts calls f with every name and string of a payload.
func texts(v any, f func(string)) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			f(k)
			texts(e, f)
		}
	case []any:
		for _, e := range v {
			texts(e, f)
		}
	case string:
		f(v)
	}
}

func checkFields(t *testing.T, p map[string]any, f Fields) {
	t.Helper()
	if f.OTP != "" && (len(f.OTP) < 4 || len(f.OTP) > 10 || strings.Trim(f.OTP, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "") {
		t.Errorf("OTP %q", f.OTP)
	}
	if lower := strings.ToLower(f.URL); f.URL != "" && (!strings.HasPrefix(lower, "http://") && !strings.HasPrefix(lower, "https://") || len(f.URL) > maxURLBytes) {
		t.Errorf("URL %q", f.URL)
	}
	for name, text := range map[string]string{"payee": f.Payee, "wallet": f.Wallet, "country": f.Country, "currency": f.Currency, "last4": f.Last4, "amount": f.Amount} {
		if holdsPAN(text) && name != "amount" { // one in ten of the large ones looks like a card number
			t.Errorf("%s %q", name, text)
		}
		if strings.ContainsFunc(text, unicode.IsControl) || len(text) > 4*maxIDBytes {
			t.Errorf("%s %q", name, text)
		}
	}
	if len(f.Last4) != 0 && len(f.Last4) != 4 || !allDigits(f.Last4) || len(f.Country) != 0 && len(f.Country) != 2 || len(f.Currency) != 0 && len(f.Currency) != 3 {
		t.Errorf("last4 %q, country %q, currency %q", f.Last4, f.Country, f.Currency)
	}
	if shown := f.redacted(); shown.OTP != "" && shown.OTP != removed || shown.URL != "" && shown.URL != removed ||
		holdsPAN(shown.CardID) || holdsPAN(shown.UserID) || holdsPAN(shown.Reference) {
		t.Errorf("it prints as %s", f)
	}
	if f.Amount == "" {
		return
	}
	verbatim := false
	scalars(p, func(s string) { verbatim = verbatim || sameMoney(strings.TrimSpace(s), f.Amount) })
	if !verbatim {
		t.Errorf("the amount %q is none of the payload's", f.Amount)
	}
}

// sameMoney tells, apart from the code under test, whether amount is what the issuer
// sent: the same value, and where that is written plainly, as many decimals.
func sameMoney(sent, amount string) bool {
	if len(sent) > maxLiteral || strings.Trim(sent, "0123456789.eE+-") != "" {
		return false
	}
	if _, exponent, ok := strings.Cut(strings.ToLower(sent), "e"); ok && len(exponent) > 6 {
		return false // big.Rat would write it out
	}
	want, ok := new(big.Rat).SetString(sent)
	got, ok2 := new(big.Rat).SetString(amount)
	if !ok || !ok2 || want.Cmp(got) != 0 {
		return false
	}
	_, sentDecimals, _ := strings.Cut(sent, ".")
	_, decimals, _ := strings.Cut(amount, ".")
	return strings.ContainsAny(sent, "eE") || len(sentDecimals) == len(decimals)
}
