package api

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"

	"approvalrelay/crypto/passkey/passkeytest"
	"approvalrelay/relay"
)

// contract is the parsed document and what holds answers against it.
type contract struct {
	model     *v3.Document
	validator validator.Validator
}

var theContract = sync.OnceValues(func() (contract, error) {
	body, err := openAPI()
	if err != nil {
		return contract{}, err
	}
	document, err := libopenapi.NewDocument(body)
	if err != nil {
		return contract{}, err
	}
	model, err := document.BuildV3Model()
	if err != nil {
		return contract{}, err
	}
	v, errs := validator.NewValidator(document, config.WithFormatAssertions(), config.WithoutSecurityValidation())
	if len(errs) > 0 {
		return contract{}, fmt.Errorf("%v", errs)
	}
	return contract{&model.Model, v}, nil
})

// template is the documented path that a request's path fits, "" for none.
func (c contract) template(path string) string {
	for template := range c.model.Paths.PathItems.KeysFromOldest() {
		if fits(template, path) {
			return template
		}
	}
	return ""
}

func fits(template, path string) bool {
	t, p := strings.Split(template, "/"), strings.Split(path, "/")
	return slices.EqualFunc(t, p, func(t, p string) bool { return t == p || strings.HasPrefix(t, "{") && p != "" })
}

func (c contract) operation(method, template string) *v3.Operation {
	item, ok := c.model.Paths.PathItems.Get(template)
	if !ok {
		return nil
	}
	op, _ := item.GetOperations().Get(strings.ToLower(method))
	return op
}

// answered collects what was answered: "POST /v1/… 200".
type answered struct {
	mu  sync.Mutex
	all map[string]bool
}

func (a *answered) add(s string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all == nil {
		a.all = map[string]bool{}
	}
	a.all[s] = true
}

var seen answered

// checkDocumented holds an answer against the document: its status, required
// headers, media type and body.
func checkDocumented(t testing.TB, req *http.Request, resp *http.Response, body []byte) {
	t.Helper()
	c, err := theContract()
	must(t, err)
	template := c.template(req.URL.Path)
	op := c.operation(req.Method, template)
	if op == nil {
		return // no route of the API; TestEveryRouteIsDocumented sees to those that are
	}
	seen.add(fmt.Sprintf("%s %s %d", req.Method, template, resp.StatusCode))
	documented, ok := op.Responses.Codes.Get(fmt.Sprint(resp.StatusCode))
	if !ok {
		t.Errorf("%s %s: status %d is not documented: %s", req.Method, template, resp.StatusCode, body)
		return
	}
	for name, h := range documented.Headers.FromOldest() {
		if h.Required && resp.Header.Get(name) == "" {
			t.Errorf("%s %s %d: no header %s", req.Method, template, resp.StatusCode, name)
		}
	}
	copied := *resp
	copied.Body = io.NopCloser(bytes.NewReader(body))
	if ok, errs := c.validator.ValidateHttpResponse(req, &copied); !ok {
		for _, e := range errs {
			t.Errorf("%s %s %d: %s: %s %v\n%s", req.Method, template, resp.StatusCode, e.Message, e.Reason, e.SchemaValidationErrors, body)
		}
	}
}

func TestDocumentIsValid(t *testing.T) {
	t.Parallel()
	c, err := theContract()
	must(t, err)
	if ok, errs := c.validator.ValidateDocument(); !ok {
		for _, e := range errs {
			t.Errorf("%s: %s %v", e.Message, e.Reason, e.SchemaValidationErrors)
		}
	}
}

func TestEveryRouteIsDocumented(t *testing.T) {
	t.Parallel()
	c, err := theContract()
	must(t, err)
	b := newBed(t)
	routes := map[string]bool{}
	for _, r := range b.server.publicRoutes.Routes() {
		if r.Path == "/" || r.Path == "/app" || r.Path == "/app/*file" {
			continue // the app is for browsers
		}
		parts := strings.Split(r.Path, "/")
		for i, p := range parts {
			if name, ok := strings.CutPrefix(p, ":"); ok {
				parts[i] = "{" + name + "}"
			}
		}
		routes[r.Method+" "+strings.Join(parts, "/")] = true
	}
	documented := map[string]bool{}
	for template, item := range c.model.Paths.PathItems.FromOldest() {
		for method := range item.GetOperations().KeysFromOldest() {
			documented[strings.ToUpper(method)+" "+template] = true
		}
	}
	if !maps.Equal(routes, documented) {
		t.Errorf("routes     %v\ndocumented %v", slices.Sorted(maps.Keys(routes)), slices.Sorted(maps.Keys(documented)))
	}
}

// TestEveryAnswerIsDocumented runs through every route and every refusal that
// the document lists; call holds each answer against it. Faults of ours (500)
// cannot be provoked on every route; TestPanicIsOpaque has one.
func TestEveryAnswerIsDocumented(t *testing.T) {
	t.Parallel()
	c, err := theContract()
	must(t, err)
	want := map[string]bool{}
	for template, item := range c.model.Paths.PathItems.FromOldest() {
		for method, op := range item.GetOperations().FromOldest() {
			for status := range op.Responses.Codes.KeysFromOldest() {
				if status != "500" {
					want[strings.ToUpper(method)+" "+template+" "+status] = true
				}
			}
		}
	}
	runThroughEverything(t)
	for answer := range want {
		seen.mu.Lock()
		if !seen.all[answer] {
			t.Errorf("documented, but was not answered: %s", answer)
		}
		seen.mu.Unlock()
	}
}

func runThroughEverything(t *testing.T) {
	t.Helper()
	b := newBed(t)
	good := func(r request, status int) answer {
		t.Helper()
		checkRequest(t, b, r)
		return b.call(r).status(status)
	}
	token := b.token()
	call := func(method, path, body string) request {
		return request{method: method, path: path, token: token, body: body}
	}
	good(request{method: "GET", path: "/openapi.json"}, 200)
	good(request{method: "GET", path: "/.well-known/webauthn"}, 200)
	good(request{method: "GET", path: "/v1/push/key"}, 200)
	good(request{method: "POST", path: "/webhooks/acme", body: b.envelope("CARD_3DS", payload(nil))}, 200)

	decided := b.challenge("acme", "CARD_3DS", nil)
	good(call("GET", "/v1/challenges/"+decided, ""), 200)
	good(call("POST", "/v1/challenges/"+decided+"/approve", `{"shown":{"amount":"100.2","currency":"USD","payee":"Sephora Digital"}}`), 200)
	good(call("POST", "/v1/challenges/"+b.challenge("acme", "CARD_3DS", nil)+"/reject", `{"reason":"not_me"}`), 200)
	withCode := b.challenge("acme", "CARD_3DS", map[string]any{"otp": "045435"})
	good(call("POST", "/v1/challenges/"+withCode+"/reveal", ""), 200)
	good(call("POST", "/v1/challenges/"+withCode+"/done", ""), 200)
	good(call("GET", "/v1/challenges?status=all&limit=2", ""), 200)

	release := b.issuer.holdBack()
	slowly := map[string]string{"approve": b.challenge("acme", "CARD_3DS", nil), "reject": b.challenge("acme", "CARD_3DS", nil)}
	var waiting sync.WaitGroup
	for action, id := range slowly {
		waiting.Go(func() { b.call(call("POST", "/v1/challenges/"+id+"/"+action, "")).status(202) })
	}
	waiting.Wait()
	release()

	sub := subscription(t, "https://fcm.googleapis.com/fcm/send/everything")
	registered := decodeAs[subscriptionView](good(call("POST", "/v1/push/subscriptions", asJSON(t, sub)), 201))
	good(call("POST", "/v1/push/subscriptions", asJSON(t, sub)), 200)
	good(call("GET", "/v1/push/subscriptions", ""), 200)
	path := "/v1/push/subscriptions/" + registered.ID
	b.post(path+"/test", "").problem(400, "invalid_request")
	b.post(path+"/activate", `{"code":"WRONG"}`).problem(409, "wrong_code")
	code := b.pushed(func(p pushed) bool { return p.Activation.ID == registered.ID }).Activation.Code
	good(call("POST", path+"/activate", asJSON(t, map[string]string{"code": code})), 204)
	good(call("POST", path+"/test", ""), 202)
	good(call("DELETE", path, ""), 204)

	withPasskeys(t, b, good, call)
	refuseEverything(t, b, withCode)
}

// withPasskeys approves with one, and provokes what is refused.
func withPasskeys(t *testing.T, b *bed, good func(request, int) answer, call func(method, path, body string) request) {
	t.Helper()
	dear := "/v1/challenges/" + b.dear()
	b.post(dear+"/step-up", "").problem(409, "no_passkey")
	b.post(dear+"/step-up", `{"x":1}`).problem(400, "invalid_request")
	b.post("/v1/passkeys/options", "x").problem(400, "invalid_request")
	b.post("/v1/passkeys", "{}").problem(400, "invalid_request")
	b.call(request{method: "DELETE", path: "/v1/passkeys/pky_x", token: b.token()}).problem(404, "not_found")
	a := passkeytest.New("https://relay.example.com", "relay.example.com")
	made := a.Create(publicKey(good(call("POST", "/v1/passkeys/options", ""), 200)))
	k := decodeAs[passkeyView](good(call("POST", "/v1/passkeys", `{"label":"phone","passkey":`+string(made)+`}`), 201))
	good(call("GET", "/v1/passkeys", ""), 200)
	b.post(dear+"/approve", "").problem(403, "step_up_required")
	signed := a.Get(publicKey(good(call("POST", dear+"/step-up", ""), 200)))
	good(call("POST", dear+"/approve", `{"passkey":`+string(signed)+`}`), 200)
	good(call("DELETE", "/v1/passkeys/"+k.ID, ""), 204)
	for _, path := range []string{dear + "/step-up", "/v1/passkeys"} {
		b.post(path, strings.Repeat("x", 9<<10)).problem(413, "too_large")
	}
	b.post("/v1/challenges/chl_01J8ZQ5X4N8K3T0V7B2M6C9R1D00/step-up", "").problem(404, "not_found")

	off := newBed(t)
	off.service.StepUp = relay.StepUpOptions{}
	off.get("/v1/passkeys").problem(404, "not_configured")
	off.post("/v1/passkeys", `{"passkey":{}}`).problem(404, "not_configured")
	off.post("/v1/passkeys/options", "").problem(404, "not_configured")
}

// refuseEverything provokes what every route refuses.
func refuseEverything(t *testing.T, b *bed, ended string) {
	t.Helper()
	b.webhook("acme", "{").problem(400, "malformed_envelope")
	b.webhook("acme", `{"encrypted_payload":"AAAA","type":"X","hmac":"00"}`).problem(401, "invalid_signature")
	b.webhook("nobody", "{}").problem(404, "unknown_merchant")
	b.webhook("acme", strings.Repeat(" ", 5<<10)).problem(413, "too_large")
	b.webhook("slow", "{}").problem(400, "malformed_envelope")
	b.webhook("slow", "{}").problem(429, "rate_limited")

	b.get("/v1/challenges?limit=0").problem(400, "invalid_request")
	none := "/v1/challenges/" + ended[:len(ended)-4] + "0000"
	pending := "/v1/challenges/" + b.challenge("acme", "CARD_3DS", nil)
	b.post("/v1/push/subscriptions", "{}").problem(400, "invalid_request")
	b.post("/v1/push/subscriptions/sub_x/activate", "{}").problem(400, "invalid_request")
	for _, action := range []string{"approve", "reject"} {
		b.post(none+"/"+action, "").problem(404, "not_found")
		b.post(pending+"/"+action, `{"x":1}`).problem(400, "invalid_request")
		b.post("/v1/challenges/"+ended+"/"+action, "").status(409)
	}
	for _, action := range []string{"reveal", "done"} {
		b.post(none+"/"+action, "").problem(404, "not_found")
		b.post(pending+"/"+action, "").problem(409, "wrong_method")
	}
	b.get(none).problem(404, "not_found")
	long := strings.Repeat("x", 9<<10)
	for _, path := range []string{pending + "/approve", pending + "/reject", "/v1/push/subscriptions", "/v1/push/subscriptions/sub_x/activate"} {
		b.post(path, long).problem(413, "too_large")
	}
	b.call(request{method: "DELETE", path: "/v1/push/subscriptions/sub_x", token: b.token()}).problem(404, "not_found")
	b.post("/v1/push/subscriptions/sub_x/activate", `{"code":"X"}`).problem(404, "not_found")
	b.post("/v1/push/subscriptions/sub_x/test", "").problem(404, "not_found")

	off := newBed(t, func(o *Options) { o.VAPIDPublicKey = "" })
	off.get("/v1/push/key").problem(404, "not_configured")
	off.post("/v1/push/subscriptions", "{}").problem(404, "not_configured")

	limited := newBed(t, func(o *Options) { o.UserLimit = Limit{PerSecond: 0.01, Burst: 1} })
	limited.get("/v1/challenges").status(200)
	for _, r := range signedInCalls() {
		b.call(request{method: r.method, path: r.path}).problem(401, "unauthorized")
		r.token = limited.token()
		limited.call(r).problem(429, "rate_limited")
	}
	b.streams(t)
	must(t, b.store.Close())
	b.webhook("acme", b.envelope("CARD_3DS", payload(nil))).problem(503, "store_unavailable")
	for _, r := range signedInCalls() {
		r.token = b.token()
		b.call(r).problem(503, "store_unavailable")
	}
}

// streams opens one event stream, which lasts until it is left.
func (b *bed) streams(t *testing.T) {
	t.Helper()
	st := b.stream(b.token())
	st.next("snapshot")
	checkDocumented(t, st.resp.Request, st.resp, []byte("event: snapshot\n\n"))
	must(t, st.resp.Body.Close())
}

// signedInCalls is one well-formed call of every route that wants a token.
func signedInCalls() []request {
	const id, sub, key = "chl_01J8ZQ5X4N8K3T0V7B2M6C9R1D00", "sub_01J8ZQ5X4N8K3T0V7B2M6C9R1D00", "pky_01J8ZQ5X4N8K3T0V7B2M6C9R1D00"
	subscription := `{"endpoint":"https://fcm.googleapis.com/x","keys":{"p256dh":"BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4","auth":"BTBZMqHH6r4Tts7J_aSIgg"}}`
	return []request{
		{method: "GET", path: "/v1/challenges"},
		{method: "GET", path: "/v1/challenges/" + id},
		{method: "POST", path: "/v1/challenges/" + id + "/approve"},
		{method: "POST", path: "/v1/challenges/" + id + "/step-up"},
		{method: "POST", path: "/v1/challenges/" + id + "/reject"},
		{method: "POST", path: "/v1/challenges/" + id + "/reveal"},
		{method: "POST", path: "/v1/challenges/" + id + "/done"},
		{method: "GET", path: "/v1/events"},
		{method: "GET", path: "/v1/passkeys"},
		{method: "POST", path: "/v1/passkeys/options"},
		{method: "POST", path: "/v1/passkeys", body: `{"passkey":{}}`},
		{method: "DELETE", path: "/v1/passkeys/" + key},
		{method: "POST", path: "/v1/push/subscriptions", body: subscription},
		{method: "GET", path: "/v1/push/subscriptions"},
		{method: "DELETE", path: "/v1/push/subscriptions/" + sub},
		{method: "POST", path: "/v1/push/subscriptions/" + sub + "/activate", body: `{"code":"ABCDEFGH"}`},
		{method: "POST", path: "/v1/push/subscriptions/" + sub + "/test"},
	}
}

// checkRequest holds a request that is meant to be good against the document.
func checkRequest(t testing.TB, b *bed, r request) {
	t.Helper()
	c, err := theContract()
	must(t, err)
	req, err := http.NewRequest(r.method, b.public.URL+r.path, strings.NewReader(r.body))
	must(t, err)
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	} else {
		req.Body = nil
	}
	if ok, errs := c.validator.ValidateHttpRequest(req); !ok {
		for _, e := range errs {
			t.Errorf("request %s %s: %s: %s %v", r.method, r.path, e.Message, e.Reason, e.SchemaValidationErrors)
		}
	}
}
