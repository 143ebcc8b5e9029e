package relay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func mustParse(t testing.TB, body string) map[string]any {
	t.Helper()
	p, err := ParsePayload([]byte(body))
	if err != nil {
		t.Fatalf("ParsePayload: %v", err)
	}
	return p
}

func TestParsePayloadRefuses(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	list := func(n int) string { return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}" }
	for in, want := range map[string]string{
		"":                              "not valid JSON",
		"045435":                        "after its JSON value", // a leading zero stands alone
		`{"otp":"045435"`:               "not valid JSON",
		`{"otp":"045435",}`:             "not valid JSON near byte 17",
		`{"otp":'045435'}`:              "not valid JSON",
		`[1,2]`:                         "a JSON array",
		`null`:                          "a JSON null",
		`"045435"`:                      "a JSON string",
		`145435`:                        "a JSON number",
		`true`:                          "a JSON boolean",
		`{"otp":"045435"} {"a":1}`:      "after its JSON value",
		`{"otp":"045435"}x045435`:       "after its JSON value",
		deep(33):                        "deeper than 32",
		list(32):                        "deeper than 32",
		strings.Repeat(`{"a":`, 60_000): "not valid JSON",
	} {
		p, err := ParsePayload([]byte(in))
		if err == nil {
			t.Errorf("ParsePayload(%.40q) = %v; want it refused", in, p)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("ParsePayload(%.40q): %q does not say %q", in, err, want)
		}
		if strings.Contains(err.Error(), "5435") {
			t.Errorf("ParsePayload(%.40q) quotes the content: %q", in, err)
		}
	}
	for _, in := range []string{"{}", " {\"a\":1} \n", deep(32), list(31)} {
		if _, err := ParsePayload([]byte(in)); err != nil {
			t.Errorf("ParsePayload(%.40q): %v", in, err)
		}
	}
}

func TestCanonical(t *testing.T) {
	t.Parallel()
	same := [][2]string{
		{`{"a":1,"b":{"d":2,"c":3}}`, "{\"b\" : {\"c\":3,\n\"d\":2}, \"a\":1}"},
		{`{"a":"\u0041\u003c"}`, `{"a":"A<"}`},
	}
	for _, pair := range same {
		a, b := Canonical(mustParse(t, pair[0])), Canonical(mustParse(t, pair[1]))
		if !bytes.Equal(a, b) {
			t.Errorf("%s and %s differ", a, b)
		}
	}
	different := [][2]string{
		{`{"id":9007199254740993}`, `{"id":9007199254740992}`},
		{`{"id":12345678901234567890123}`, `{"id":12345678901234567890124}`},
		{`{"a":1}`, `{"a":"1"}`},
		{`{"a":null}`, `{}`},
		{`{"a":[1,2]}`, `{"a":[2,1]}`},
	}
	for _, pair := range different {
		a, b := Canonical(mustParse(t, pair[0])), Canonical(mustParse(t, pair[1]))
		if bytes.Equal(a, b) {
			t.Errorf("%s and %s are the same", pair[0], pair[1])
		}
	}
	if got, want := string(Canonical(mustParse(t, ` {"b":"<&>","a":1.50e1} `))), `{"a":1.50e1,"b":"<&>"}`; got != want {
		t.Errorf("Canonical = %s, want %s", got, want)
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	p := mustParse(t, `{"otp":"045435","amount":5,"ok":true,"none":null,
		"merchant":{"name":"Shop"},"items":[{"id":1},{"id":"x"},2],
		"4111 1111 1111 1111":1,"045435":1,"`+strings.Repeat("k", 65)+`":1}`)
	want := []FieldShape{
		{"[removed]", "number"}, {"amount", "number"}, {"items", "array"}, {"items[]", "number"}, {"items[]", "object"},
		{"items[].id", "number"}, {"items[].id", "string"}, {"merchant", "object"}, {"merchant.name", "string"},
		{"none", "null"}, {"ok", "boolean"}, {"otp", "string"},
	}
	if got := Describe(p); !reflect.DeepEqual(got, want) {
		t.Errorf("Describe =\n%v, want\n%v", got, want)
	}
	many := map[string]any{}
	for i := range 300 {
		many[fmt.Sprintf("k%03d", i)] = "x"
	}
	got := Describe(many)
	if len(got) != 100 || got[0].Path != "k000" || got[99].Path != "k099" {
		t.Errorf("%d fields, %v to %v; want the first 100", len(got), got[0], got[len(got)-1])
	}
}

// FuzzCanonical: the bytes say the whole content and nothing else, so that two
// contents are the same exactly when their bytes are.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{`{}`, `{"b":1.50e1,"a":"<\u2028\ud800"}`, `{"a":{"a":[null,true,{}]}}`, "{\"\xff\":\"\xfe\"}", `{"a":1,"a":2}`, `{"n":-0.0E+5}`, `{"":{"":""}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := ParsePayload(body)
		if err != nil {
			if p != nil {
				t.Errorf("refused, and yet %v", p)
			}
			return
		}
		once := Canonical(p)
		again, err := ParsePayload(once)
		if err != nil {
			t.Fatalf("Canonical gave %q, which is refused: %v", once, err)
		}
		if !reflect.DeepEqual(again, p) {
			t.Errorf("%q became %q: not the same content", body, once)
		}
		var spaced bytes.Buffer
		if err := json.Indent(&spaced, body, " ", "\t"); err != nil {
			t.Fatal(err)
		}
		if other := Canonical(mustParse(t, spaced.String())); !bytes.Equal(once, other) {
			t.Errorf("with white space %q becomes %q", once, other)
		}
	})
}
