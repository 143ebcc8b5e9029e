package relay

import (
	"encoding/json"
	"strings"
	"testing"
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

func FuzzMapping(f *testing.F) {
	for _, s := range []string{
		`{"otp":"045435","note":"045435","045435":[45435]}`, `{"otp":123456,"n":123456.0}`, `{"values":"https://a.example/1234","x":"https://a.example/1234"}`,
		`{"data":{"code":"1111","card_no":"4111111111111111"},"otp":"removed","a":"removed"}`, `{"a":"4111 1111 1111 1111 2222 3333 444","b":4.111111111111111e15}`,
		`{"data":{"data":{"otp":"123456"}},"merchant":{"name":"x"}}`, `{"occur_time":1795000000004,"expiresAt":"1795000000004"}`,
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
		if fields.OTP != "" && (len(fields.OTP) < 4 || len(fields.OTP) > 10 || strings.Trim(fields.OTP, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "") {
			t.Errorf("OTP %q", fields.OTP)
		}
		if holdsPAN(fields.Payee) {
			t.Errorf("payee %q", fields.Payee)
		}
		scalars(WithoutCode(m, p), func(s string) {
			if s != "" && (s == fields.OTP || s == fields.URL) {
				t.Errorf("WithoutCode left %q", s)
			}
		})
		masked := Mask(m, p)
		scalars(masked, func(s string) {
			if holdsPAN(s) && !isMillis(s) {
				t.Errorf("Mask left %q", s)
			}
			if s != "" && (s == fields.OTP || s == fields.URL) {
				t.Errorf("Mask left the code %q", s)
			}
		})
		if fields := m.Read(masked); fields.OTP != "" || fields.URL != "" {
			t.Errorf("Mask left a code: %q", Canonical(masked))
		}
		Describe(p)
	})
}
