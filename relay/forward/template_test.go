package forward

import (
	"encoding/json"
	"reflect"
	"regexp"
	"testing"
	"time"

	"approvalrelay/relay"
)

// filled is a template as it reaches the issuer.
func filled(t testing.TB, api *issuerAPI, template any, c relay.IssuerCall, decision any) string {
	t.Helper()
	b, err := json.Marshal(fill(template, api.lookup(c, decision)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	const event = `{"card_id":67890,"n":12345678901234567890123,"f":1.50,"e":1e2,"b":false,"s":"07","nil":null,
		"o":{"l":[1,{"x":2}],"deep":{"id":9007199254740993}},"a-b":1,"@id":2}`
	const wrapped = `{"data":{"id":1,"o":{"x":"in"}},"id":2,"o":{"x":"out","y":"top"},"top":3}`
	for _, c := range []struct{ event, template, want string }{
		{event, `"$payload.card_id"`, `67890`},
		{event, `"$payload.n"`, `12345678901234567890123`},
		{event, `"$payload.f"`, `1.50`},
		{event, `"$payload.e"`, `1e2`},
		{event, `"$payload.b"`, `false`},
		{event, `"$payload.s"`, `"07"`},
		{event, `"$payload.nil"`, `null`},
		{event, `"$payload.none"`, `null`},
		{event, `"$payload.card_id.none"`, `null`},
		{event, `"$payload.o.deep.id"`, `9007199254740993`},
		{event, `"$payload.o"`, `{"deep":{"id":9007199254740993},"l":[1,{"x":2}]}`},
		{event, `"$payload.a-b"`, `1`},
		{event, `"$payload.@id"`, `2`},
		{event, `"$challenge_id"`, `"chl_1"`},
		{event, `"$decision"`, `2`},
		{event, `"$user_id"`, `"u-1"`},

		{event, `"card $card_id, $payload.n.$payload.s!"`, `"card 67890, 12345678901234567890123.07!"`},
		{event, `"$card_id$decision"`, `"678902"`},
		{event, `" $card_id"`, `" 67890"`},
		{event, `"[$payload.none][$payload.b][$payload.o.l]"`, `"[][false][[1,{\"x\":2}]]"`},
		{event, `"$5 $ 5$"`, `"$5 $ 5$"`},
		{event, `{"$card_id":[true,null,1.0,12345678901234567890,"x",["$card_id"],{"a":{"b":"$decision"}}]}`,
			`{"$card_id":[true,null,1.0,12345678901234567890,"x",[67890],{"a":{"b":2}}]}`},

		{wrapped, `["$payload.id","$payload.o.x","$payload.o.y","$payload.top","$payload.data.id"]`, `[1,"in","top",3,1]`},
		{`{"data":[1],"id":2}`, `["$payload.id","$payload.data"]`, `[2,[1]]`},
		{`{"s":"$card_id"}`, `["$payload.s","x$payload.s"]`, `["$card_id","x$card_id"]`}, // what is put in is not looked at again
	} {
		template := payload(t, `{"v":`+c.template+`}`)["v"]
		call := relay.IssuerCall{ChallengeID: "chl_1", CardID: "67890", UserID: "u-1", Payload: payload(t, c.event)}
		api := &issuerAPI{mapping: relay.DefaultMapping()}
		if got := filled(t, api, template, call, json.Number("2")); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.template, got, c.want)
		}
	}
}

// Ids go back as the event wrote them, at the place that they were read from.
func TestIDsKeepTheirType(t *testing.T) {
	t.Parallel()
	own := relay.DefaultMapping().With(map[string][]string{"card_id": {"c.token", "c.id"}})
	for _, c := range []struct {
		mapping          relay.Mapping
		event            string
		card, user, refr string
	}{
		{nil, `{"card_id":67890,"user_id":"12345","authId":555}`, `67890`, `"12345"`, `555`},
		{nil, `{"card_id":"67890","user_id":12345,"authId":"555"}`, `"67890"`, `12345`, `"555"`},
		{nil, `{"card_id":"67890","amount":67890,"user_id":12345}`, `"67890"`, `12345`, `null`},
		{nil, `{"card_id":" 67890 "}`, `"67890"`, `null`, `null`},
		{nil, `{"card_id":6.789e4}`, `6.789e4`, `null`, `null`},
		{nil, `{"card_id":67890.0}`, `67890.0`, `null`, `null`},
		{nil, `{"card_id":9007199254740993}`, `9007199254740993`, `null`, `null`},
		{nil, `{"data":{"card_id":67890},"card_id":"67890"}`, `67890`, `null`, `null`},
		{nil, `{"data":{"x":1},"cardNo":67890}`, `67890`, `null`, `null`},
		{nil, `{"card_id":"6789****1111","cardId":67890}`, `67890`, `null`, `null`},
		{nil, `{"card_id":true,"cardId":null,"card_token":[],"cardHashId":{},"cardNo":1}`, `1`, `null`, `null`},
		{nil, `{}`, `null`, `null`, `null`},
		{own, `{"c":{"id":7},"card_id":"7"}`, `7`, `null`, `null`},
		{own, `{"c":{"token":"7"},"card_id":7}`, `"7"`, `null`, `null`},
	} {
		made, err := newIssuerAPI(IssuerAPI{Keyring: keyring(t, merchKey), Timeout: time.Second, Mapping: c.mapping})
		if err != nil {
			t.Fatal(err)
		}
		p := payload(t, c.event)
		f := made.mapping.Read(p)
		call := relay.IssuerCall{CardID: f.CardID, UserID: f.UserID, Reference: f.Reference, Payload: p}
		want := "[" + c.card + "," + c.user + "," + c.refr + "]"
		if got := filled(t, made, []any{"$card_id", "$user_id", "$reference"}, call, nil); got != want {
			t.Errorf("%s\n got %s\nwant %s", c.event, got, want)
		}
	}
	// The owner may be known from elsewhere: a number that happens to be equal
	// says nothing about the type of users.
	api := &issuerAPI{mapping: relay.DefaultMapping()}
	call := relay.IssuerCall{CardID: "67890", UserID: "50", Payload: payload(t, `{"amount":50}`)}
	if got := filled(t, api, []any{"$card_id", "$user_id"}, call, nil); got != `["67890","50"]` {
		t.Error(got)
	}
}

// The template belongs to the Issuer: who made it may change it afterwards.
func TestTemplateIsCopied(t *testing.T) {
	t.Parallel()
	url, requests := platform(t, text(200, sealedAnswer(merchKey, "{}")))
	nested := map[string]any{"x": "$card_id", "typed": map[string]string{"y": "$decision"}, "big": uint64(18446744073709551615)}
	i := issuer(t, url, func(a *IssuerAPI) {
		a.Confirm.Body = map[string]any{"nested": nested}
	})
	nested["x"] = "changed"
	c := issuerCall(t)
	for range 2 {
		checkAttempt(t, i.Confirm(t.Context(), c), relay.Delivered, 200, "")
		const want = `{"nested":{"big":18446744073709551615,"typed":{"y":2},"x":67890}}`
		if r := <-requests; r.plain != want {
			t.Errorf("%s\nwant %s", r.plain, want)
		}
	}
	if want := payload(t, `{"card_id":67890,"reference_code":"4868798"}`); !reflect.DeepEqual(c.Payload, want) {
		t.Errorf("the event became %v", c.Payload)
	}
}

var pathSegment = regexp.MustCompile(`^[^.\s$]+$`)

// FuzzTemplate: no event and no template makes fill panic or write no JSON, and
// a whole placeholder is replaced by exactly the value, whatever its type.
func FuzzTemplate(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"card_id":67890,"a":{"b":[1,"x",null,true,1e400]}}`, `{"x":"$payload.a.b","y":["$card_id $payload.a"]}`},
		{`{"data":{"card_id":"1","k":12345678901234567890},"k":2}`, `{"$k":{"z":"$reference$user_id"},"w":"$unknown"}`},
		{`{"a-b":"","@":1,"d":{"":1}}`, `{"q":"$payload.a-b$payload.@","r":"$payload.d."}`},
	} {
		f.Add(seed[0], seed[1])
	}
	api := &issuerAPI{mapping: relay.DefaultMapping()}
	f.Fuzz(func(t *testing.T, event, template string) {
		p, err := relay.ParsePayload([]byte(event))
		if err != nil {
			return
		}
		fields := api.mapping.Read(p)
		c := relay.IssuerCall{CardID: fields.CardID, UserID: fields.UserID, Reference: fields.Reference, Payload: p}
		if body, err := relay.ParsePayload([]byte(template)); err == nil {
			filled(t, api, body, c, json.Number("2"))
		}
		top := roots(p)[0]
		for key, want := range top {
			if !pathSegment.MatchString(key) || want == nil {
				continue
			}
			if got := fill("$payload."+key, api.lookup(c, nil)); !reflect.DeepEqual(got, want) {
				t.Errorf("%q became %#v, want %#v", key, got, want)
			}
		}
		if n, ok := top["card_id"].(json.Number); ok && fields.CardID != "" && reads(n, fields.CardID) {
			if got := fill("$card_id", api.lookup(c, nil)); got != n {
				t.Errorf("card_id %s became %#v", n, got)
			}
		}
	})
}
