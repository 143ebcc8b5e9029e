package relay

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

const vectorTTL = 300 * time.Second

// fieldsOf is the fields under the names of the vectors; empty ones are left out.
func fieldsOf(f Fields) map[string]string {
	all := map[string]string{
		"card_id": f.CardID, "user_id": f.UserID, "reference": f.Reference, "otp": f.OTP, "url": f.URL, "payee": f.Payee,
		"country": f.Country, "amount": f.Amount, "currency": f.Currency, "last4": f.Last4, "wallet": f.Wallet,
		"status": f.Status, "method": methodOf(f),
	}
	if !f.Occurred.IsZero() {
		all["occurred"] = f.Occurred.Format(time.RFC3339Nano)
	}
	if !f.Expires.IsZero() {
		all["expires"] = f.Expires.Format(time.RFC3339Nano)
	}
	maps.DeleteFunc(all, func(_, v string) bool { return v == "" })
	return all
}

// methodOf is what a payload asks for by what it carries.
func methodOf(f Fields) string {
	switch {
	case f.OTP != "":
		return "otp"
	case f.URL != "":
		return "url"
	case f.Amount != "" && f.Currency != "":
		return "approve"
	}
	return ""
}

type vector struct {
	Name, Type string
	Payload    json.RawMessage
	Expect     map[string]any
}

func TestVectors(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/payloads.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) != 18 {
		t.Fatalf("%d vectors, want 18", len(vectors))
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			if len(v.Expect) == 0 {
				t.Fatal("nothing is expected")
			}
			p, err := ParsePayload(v.Payload)
			f := DefaultMapping().Read(p)
			if v.Expect["quarantined"] == true {
				action := v.Type == "CARD_3DS" || v.Type == "CARD_VERIFICATION"
				understood := err == nil && action && methodOf(f) != "" && f.CardID+f.UserID != ""
				if understood {
					t.Errorf("%v: nothing speaks against it", fieldsOf(f))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkVector(t, f, v.Expect)
		})
	}
}

func checkVector(t *testing.T, f Fields, expect map[string]any) {
	t.Helper()
	got := fieldsOf(f)
	for name, want := range expect {
		if name == "expires_ms" {
			expires := f.Expires
			if expires.IsZero() {
				expires = f.Occurred.Add(vectorTTL)
			}
			if ms := float64(expires.UnixMilli()); ms != want {
				t.Errorf("expires_ms = %.0f, want %v", ms, want)
			}
			continue
		}
		if got[name] != want {
			t.Errorf("%s = %q, want %q", name, got[name], want)
		}
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 257)
	for _, tc := range []struct {
		name, in string
		want     map[string]string
	}{
		{"ids as numbers", `{"card_id":67890.0,"user_id":6.789e4,"id":12345678901234567890}`, map[string]string{"card_id": "67890", "user_id": "67890", "reference": "12345678901234567890"}},
		{"fractions stay", `{"card_id":1.50}`, map[string]string{"card_id": "1.50"}},
		{"ids that are none", `{"card_id":true,"cardId":null,"card_token":{},"cardHashId":[],"userBankcardId":"  ","cardNo":"a\nb","user_id":"` + long + `","uid":1e999999999}`, nil},
		{"what was no text is no id: many would be the same one", `{"card_id":"a\ud800","cardId":"a` + "\xff" + `","user_id":"\ufffd","card_token":"c-1"}`, map[string]string{"card_id": "c-1"}},
		{"the first acceptable wins", `{"card_id":"","cardId":" c-1 ","card_token":"c-2"}`, map[string]string{"card_id": "c-1"}},
		{"256 bytes of id", `{"card_id":"` + long[:256] + `"}`, map[string]string{"card_id": long[:256]}},
		{"a masked number is no card id", `{"card_id":"****4242","cardId":"5555 55XX XXXX 4444","card_token":"••••1881","cardNo":"5555********4444"}`, map[string]string{"last4": "4444"}},
		{"an id with an x is one", `{"card_id":"ext-1x"}`, map[string]string{"card_id": "ext-1x"}},
		{"a hexadecimal id is one", `{"card_id":"0x12345678"}`, map[string]string{"card_id": "0x12345678"}},
		{"a full number is id and last4", `{"card_id":"4111 1111-1111 1234 "}`, map[string]string{"card_id": "4111 1111-1111 1234"}},
		{"last4 of a card id that is a card number", `{"card_id":4111111111111111}`, map[string]string{"card_id": "4111111111111111", "last4": "1111"}},
		{"last4 of a card number", `{"card_number":"4111-1111-1111-1111"}`, map[string]string{"last4": "1111"}},
		{"last4 on its own", `{"card_number":4242}`, map[string]string{"last4": "4242"}},
		{"an id of four digits is no last4", `{"cardNo":"4242"}`, map[string]string{"card_id": "4242"}},
		{"last4 hidden", `{"card_number":"4111 11** **** **11"}`, nil},
		{"last4 of no card number", `{"card_number":"1234567890123456"}`, nil},
		{"codes", `{"otp":"abc","validation_value":"12345678901","activationCode":"12 34","values":"１２３４","code":" A1b2 "}`, map[string]string{"otp": "A1b2", "method": "otp"}},
		{"a code as a number", `{"otp":123456}`, map[string]string{"otp": "123456", "method": "otp"}},
		{"no codes", `{"otp":-12345,"validation_value":12.34,"activationCode":true,"values":["123456"],"code":123}`, nil},
		{"no links", `{"auth_url":"javascript:alert(1)","values":"https:///x"}`, nil},
		{"no links either", `{"auth_url":"//a.example/","values":"https://a.example/` + strings.Repeat("a", 2048) + `"}`, nil},
		{"nor these", `{"auth_url":"http://:80/","values":"https://a.example/\u0000"}`, nil},
		{"a link", `{"auth_url":" HTTPS://a.example:8443/x?y#z "}`, map[string]string{"url": "HTTPS://a.example:8443/x?y#z", "method": "url"}},
		{"amount keeps its scale", `{"amount":100.20,"currency":"usd"}`, map[string]string{"amount": "100.20", "currency": "USD", "method": "approve"}},
		{"amount with exponent", `{"amount":1e2}`, map[string]string{"amount": "100"}},
		{"amount and currency that are none", `{"amount":-1,"transaction_amount":true,"transactionAmount":"1,00","currency":"$","transaction_currency":null}`, nil},
		{"an amount with its own currency", `{"amount":"90","transaction_amount":"100","transaction_currency":"USD"}`, map[string]string{"amount": "100", "currency": "USD", "method": "approve"}},
		{"better than none", `{"amount":"90","transaction_currency":36}`, map[string]string{"amount": "90", "currency": "AUD", "method": "approve"}},
		{"unknown country is skipped", `{"merchant_country_code":"ZZ","merchant":{"countryCode":"EU"},"merchant_country":36}`, map[string]string{"country": "AU"}},
		{"data first, then the top", `{"card_id":"top","data":{"cardId":"in"},"user_id":7,"amount":1,"currency":"EUR"}`, map[string]string{"card_id": "in", "user_id": "7", "amount": "1", "currency": "EUR", "method": "approve"}},
		{"data that is no object", `{"card_id":"top","data":[{"card_id":"in"}]}`, map[string]string{"card_id": "top"}},
		{"a path through no object", `{"merchant":"Shop","transaction":[{"amount":1}]}`, nil},
		{"payee on one line", `{"merchant_name":" A\u202eB\n\tC  D "}`, map[string]string{"payee": "AB C D"}},
		{"payee without secrets", `{"detail":"045435 for 4111111111111111","otp":"045435"}`, map[string]string{"payee": "[removed] for ····1111", "otp": "045435", "method": "otp"}},
		{"payee is bounded", `{"detail":"a` + strings.Repeat("é", 200) + `"}`, map[string]string{"payee": "a" + strings.Repeat("é", 127)}},
		{"status", `{"status":"SUCCESS"}`, map[string]string{"status": "SUCCESS"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := fieldsOf(DefaultMapping().Read(mustParse(t, tc.in))); !maps.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
	if got := fieldsOf(DefaultMapping().Read(nil)); len(got) != 0 {
		t.Errorf("nothing gives %q", got)
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`1795000000`: "2026-11-18T11:06:40Z", `1795000000000`: "2026-11-18T11:06:40Z", `1795000000000000`: "2026-11-18T11:06:40Z",
		`1795000000000000001`: "2026-11-18T11:06:40.000000001Z", `"1795000000123"`: "2026-11-18T11:06:40.123Z",
		`1795000000.125`: "2026-11-18T11:06:40.125Z", `1795000000000.5`: "2026-11-18T11:06:40.0005Z", `1.795e9`: "2026-11-18T11:06:40Z",
		`"2026-11-18T00:26:40Z"`: "2026-11-18T00:26:40Z", `"2026-11-18T01:26:40.5+01:00"`: "2026-11-18T00:26:40.5Z",
		`"2026-11-18T00:26:40.000+0000"`: "2026-11-18T00:26:40Z", `"2026-11-18 00:26:40"`: "2026-11-18T00:26:40Z",
		`"2026-11-18T00:26:40"`: "2026-11-18T00:26:40Z", `"2026-11-18 01:26:40+01:00"`: "2026-11-18T00:26:40Z",
		`946684800`: "2000-01-01T00:00:00Z", `4133980799`: "2100-12-31T23:59:59Z",
		`0`: "", `300`: "", `-1795000000`: "", `946684799`: "", `4133980800`: "", `"12/27"`: "", `"1999-12-31T23:59:59Z"`: "", `"2101-01-01T00:00:00Z"`: "",
		`"now"`: "", `""`: "", `null`: "", `true`: "", `9223372036854775807`: "", `99999999999999999999`: "", `"1795000000.x"`: "", `20261118002640`: "",
	} {
		f := DefaultMapping().Read(mustParse(t, `{"occur_time":`+in+`,"expiresAt":`+in+`}`))
		if f.Occurred != f.Expires {
			t.Errorf("%s: occurred %v, expires %v", in, f.Occurred, f.Expires)
		}
		got := ""
		if !f.Occurred.IsZero() {
			got = f.Occurred.Format(time.RFC3339Nano)
		}
		if got != want {
			t.Errorf("%s is %q, want %q", in, got, want)
		}
	}
	f := DefaultMapping().Read(mustParse(t, `{"occur_time":300,"timestamp":1795000000}`))
	if f.Occurred.Unix() != 1795000000 {
		t.Errorf("an implausible time hides a good one: %v", f.Occurred)
	}
}

func TestWallet(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"googlePay": "google_pay", "applePay": "apple_pay", "GooglePay": "google_pay", "GOOGLE_PAY": "google_pay", "Google Pay": "google_pay",
		"apple-pay": "apple_pay", " samsung  pay ": "samsung_pay", "wallet2Go": "wallet2_go", "_": "", "4111111111111111": "", "Pay 4111-1111-1111-1111": "",
	} {
		if got := DefaultMapping().Read(map[string]any{"walletProvider": in}).Wallet; got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

func TestFailed(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]bool{
		"FAIL": true, "FAILED": true, "failure": true, "Rejected": true, "DECLINED": true, "ERROR": true, "CARD_ASSIGN_FAILED": true, "kycRejected": true, "Denied": true, "CANCELLED": true,
		"SUCCESS": false, "ACTIVE": false, "LOCKED": false, "APPROVED": false, "": false, "1": false, "PENDING": false,
	} {
		if got := (Fields{Status: status}).Failed(); got != want {
			t.Errorf("Failed with status %q = %v", status, got)
		}
	}
}

func TestWith(t *testing.T) {
	t.Parallel()
	override := map[string][]string{"card_id": {"c.id"}, "reference": {}, "amount": {"sum"}}
	m := DefaultMapping().With(override)
	override["card_id"][0] = "changed"
	got := fieldsOf(m.Read(mustParse(t, `{"c":{"id":1},"card_id":2,"id":"r","user_id":3,"sum":4,"amount":5,"currency":"EUR"}`)))
	want := map[string]string{"card_id": "1", "user_id": "3", "amount": "4", "currency": "EUR", "method": "approve"}
	if !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if first := DefaultMapping()["card_id"][0]; first != "card_id" {
		t.Errorf("With changed the default: %q", first)
	}
}

func TestFieldsShowNoSecret(t *testing.T) {
	t.Parallel()
	f := Fields{CardID: "4111111111111111", OTP: "045435", URL: "https://acs.example/challenge", Payee: "Shop"}
	marshalled, err := json.Marshal(map[string]any{"value": f, "pointer": &f})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("read", "fields", f, "pointer", &f)
	slog.New(slog.NewTextHandler(&log, nil)).Info("read", "fields", f)
	shown := []string{
		fmt.Sprint(f), fmt.Sprintf("%v", &f), fmt.Sprintf("%+v", f), fmt.Sprintf("%#v", f), fmt.Sprintf("%s %q %x", f, f, f),
		fmt.Sprintf("%v", []Fields{f}), fmt.Sprintf("%+v", struct{ F Fields }{f}), string(marshalled), log.String(), f.String(),
	}
	for i, s := range shown {
		if !strings.Contains(s, "Shop") {
			t.Errorf("%d: %s: does not show the payee", i, s)
		}
		if slices.ContainsFunc([]string{"41111111", "045435", "acs.example"}, func(secret string) bool { return strings.Contains(s, secret) }) {
			t.Errorf("%d: shows a secret: %s", i, s)
		}
	}
}

// BenchmarkRead is what each webhook costs here: parse, canonical form, fields.
func BenchmarkRead(b *testing.B) {
	body := []byte(`{"reference_code":"4868798","otp":"12344444","customer_id":"u-1000001","card_id":"c-1000001","card_number":"1234********3381",` +
		`"transaction_currency":"USD","transaction_amount":"100.20","merchant_name":"Example Merchant of Some Length","merchant_country_code":"840",` +
		`"transaction_id":"3c90c3cc-0d44-4b50-8888-8dd25736052a","transaction":{"timestamp":"2026-11-18T00:26:40Z"},"description":"payment at a shop","occur_time":1795000000000}`)
	m := DefaultMapping()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		p, err := ParsePayload(body)
		if err != nil {
			b.Fatal(err)
		}
		if len(Canonical(p)) == 0 || m.Read(p).CardID == "" {
			b.Fatal("nothing read")
		}
	}
}
