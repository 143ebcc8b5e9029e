package api

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"
	"github.com/golang-jwt/jwt/v5"

	"approvalrelay/crypto"
	"approvalrelay/push"
	"approvalrelay/relay"
)

// quietBed is one whose log stays empty, however long a fuzz test runs.
func quietBed(f *testing.F) *bed {
	f.Helper()
	b := newBed(f)
	b.server.logLevel.Set(slog.LevelError + 1)
	return b
}

// serve answers one request without a network, where headers may hold anything.
func serve(h http.Handler, method, path, body string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	r.Host, r.RemoteAddr = "localhost", "127.0.0.1:1"
	r.URL.Path, r.URL.RawQuery, _ = strings.Cut(path, "?")
	r.Header = header
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// isProblem holds a body against RFC 9457 and our own fields, and its id against
// the header's.
func isProblem(t *testing.T, w *httptest.ResponseRecorder) problem {
	t.Helper()
	var p problem
	body := w.Body.Bytes()
	if !utf8.Valid(body) || slices.ContainsFunc(body, func(c byte) bool { return c < ' ' }) {
		t.Errorf("control characters or no UTF-8 in %q", body)
	}
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil || dec.More() {
		t.Fatalf("%v in %q", err, body)
	}
	id := w.Header().Get(requestIDHeader)
	if p.Type != "about:blank" || p.Status != w.Code || p.Title != http.StatusText(w.Code) || p.Detail == "" || p.Code == "" ||
		p.RequestID != id || !validRequestID(id) || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("%d %v %+v", w.Code, w.Header(), p)
	}
	return p
}

// sameRefusal is the one answer to whatever is wrong with a token.
func sameRefusal(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	h := w.Header().Clone()
	id := h.Get(requestIDHeader)
	h.Del(requestIDHeader)
	want := fmt.Sprintf(`{"type":"about:blank","title":"Unauthorized","status":401,"detail":%q,"code":"unauthorized","request_id":%q}`, errUnauthorized.Detail, id)
	const headers = "map[Cache-Control:[no-store] Content-Security-Policy:[default-src 'none'; frame-ancestors 'none'] Content-Type:[application/problem+json] " +
		"Referrer-Policy:[no-referrer] Vary:[Origin] Www-Authenticate:[Bearer] X-Content-Type-Options:[nosniff]]"
	if w.Code != 401 || w.Body.String() != want || fmt.Sprint(h) != headers {
		t.Errorf("%d %v %s", w.Code, h, w.Body)
	}
}

// FuzzAuthorization: whatever stands in the header, a request is either signed in
// by the very token that was issued, or gets the one 401.
func FuzzAuthorization(f *testing.F) {
	b := quietBed(f)
	claims := goodClaims(time.Now(), jwt.MapClaims{"exp": 4102444800, "auth_time": nil})
	// Fuzzing spans processes: their seeds must be good in each of them.
	ed := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	var servers []*Server
	var good []string
	for _, c := range []struct {
		options JWTOptions
		method  jwt.SigningMethod
		key     any
	}{
		{withSecret, jwt.SigningMethodHS256, []byte(testSecret)},
		{withPublicKey(&rsaKey.PublicKey), jwt.SigningMethodRS256, rsaKey},
		{withPublicKey(&p256Key.PublicKey), jwt.SigningMethodES256, p256Key},
		{withPublicKey(ed.Public()), jwt.SigningMethodEdDSA, ed},
	} {
		auth, err := NewAuth(f.Context(), c.options, time.Now)
		must(f, err)
		servers = append(servers, newServer(f, b.service, b.clock, discard, func(o *Options) { o.Auth = auth }))
		good = append(good, sign(f, c.method, c.key, nil, claims))
	}
	for i, token := range good {
		f.Add("Bearer " + token)
		f.Add("bEARER " + token)
		f.Add(token)
		f.Add("Bearer " + token + " ")
		f.Add("Bearer  " + token)
		f.Add("Bearer " + token + "=")
		f.Add("Bearer " + token + "\x00")
		f.Add("Bearer " + token + ", Bearer " + token)
		if w := serve(servers[i].Public(), "GET", "/v1/challenges", "", http.Header{"Authorization": {"Bearer " + token}}); w.Code != 200 {
			f.Fatalf("a good token got %d", w.Code)
		}
	}
	for _, header := range []string{"", "Bearer", "Bearer ", "Bearer rat_", "Bearer rat_e30.AAAA", "Bearer ..", "Bearer e30.e30.", "Basic eDp5",
		"Bearer eyJhbGciOiJub25lIn0.e30.", "Bearer " + strings.Repeat("a", maxToken+1), "Bearer " + strings.Repeat("W1", 1000) + ".e30.AA"} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		for i, s := range servers {
			w := serve(s.Public(), "GET", "/v1/challenges", "", http.Header{"Authorization": {header}})
			scheme, token, _ := strings.Cut(header, " ")
			if strings.EqualFold(scheme, "Bearer") && token == good[i] {
				if w.Code != 200 {
					t.Errorf("the good token %d got %d", i, w.Code)
				}
				continue
			}
			sameRefusal(t, w)
		}
	})
}

// FuzzClaims: past a right signature too, a token passes only if it says all that
// it must.
func FuzzClaims(f *testing.F) {
	b := quietBed(f)
	const head = `{"alg":"HS256","typ":"JWT"}`
	claims := asJSON(f, goodClaims(time.Now(), jwt.MapClaims{"exp": 4102444800}))
	f.Add(head, claims)
	f.Add(`{"alg":"HS256","kid":"k"}`, strings.Replace(claims, `"relay"`, `["x","relay"]`, 1))
	f.Add(`{"alg":"HS256","crit":[]}`, claims)
	f.Add(`{"alg":"HS256","b64":false}`, claims)
	f.Add(`{"alg":"none"}`, claims)
	f.Add(`{"alg":"HS256","alg":"none"}`, claims)
	f.Add(`null`, `null`)
	f.Add(head, `[]`)
	f.Add(head, claims+"{}")
	f.Add(head, strings.Replace(claims, `"sub":`, `"sub":"1","sub":`, 1))
	f.Add(head, strings.Replace(claims, `"exp":4102444800`, `"exp":1e300`, 1))
	f.Add(head, strings.Replace(claims, `"exp":4102444800`, `"exp":4102444800,"nbf":1e300,"iat":-1e300,"auth_time":1e300`, 1))
	f.Add(head, strings.Replace(claims, `"12345"`, `"\ud800\u0000"`, 1))
	f.Add(head, strings.Repeat(`{"a":`, 1000)+strings.Repeat(`}`, 1000))
	f.Fuzz(func(t *testing.T, head, claims string) {
		token := signedText(base64.RawURLEncoding.EncodeToString([]byte(head)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims)))
		w := serve(b.server.Public(), "GET", "/v1/challenges", "", http.Header{"Authorization": {"Bearer " + token}})
		if w.Code != 200 {
			sameRefusal(t, w)
			return
		}
		var h, c map[string]any
		must(t, json.Unmarshal([]byte(head), &h))
		must(t, json.Unmarshal([]byte(claims), &c))
		audience, ok := c["aud"].([]any)
		if !ok {
			audience = []any{c["aud"]}
		}
		expires, _ := c["exp"].(float64)
		user, _ := c["sub"].(string)
		if h["alg"] != "HS256" || c["iss"] != testIssuer || !slices.Contains(audience, any(testAudience)) || expires < float64(time.Now().Unix())-30 ||
			expires > 253402300799.5 || !validUser(user) || c["merchant"] != "acme" {
			t.Errorf("signed in by %q %q", head, claims)
		}
		typ, typed := h["typ"]
		for _, name := range []string{"crit", "b64"} {
			if _, ok := h[name]; ok || typed && !slices.Contains([]string{"jwt", "at+jwt", "application/at+jwt"}, strings.ToLower(fmt.Sprint(typ))) {
				t.Errorf("signed in by %q", head)
			}
		}
	})
}

// FuzzCursor: a cursor is one that a list has returned, or a bad request.
func FuzzCursor(f *testing.F) {
	b := quietBed(f)
	for range 3 {
		b.challenge("acme", "CARD_3DS", nil)
		b.webhook("acme", b.envelope("CARD_STATUS_CHANGE", payload(nil))).status(200)
	}
	lists := []struct {
		handler http.Handler
		path    string
		token   string
	}{
		{b.server.Public(), "/v1/challenges?status=all&limit=1&cursor=", b.token(jwt.MapClaims{"exp": 4102444800})},
		{b.server.Admin(), "/ops/v1/events?limit=1&cursor=", testAdmin},
		{b.server.Admin(), "/ops/v1/deliveries?limit=1&cursor=", testAdmin},
		{b.server.Admin(), "/ops/v1/challenges?limit=1&cursor=", testAdmin},
	}
	get := func(i int, cursor string) *httptest.ResponseRecorder {
		return serve(lists[i].handler, "GET", lists[i].path+url.QueryEscape(cursor), "", http.Header{"Authorization": {"Bearer " + lists[i].token}})
	}
	next := func(t testing.TB, w *httptest.ResponseRecorder) string {
		var l struct {
			Data []json.RawMessage
			Next *string `json:"next_cursor"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &l); err != nil || l.Data == nil {
			t.Fatalf("%v in %s", err, w.Body)
		}
		if l.Next == nil {
			return ""
		}
		return *l.Next
	}
	for i := range lists {
		cursor := next(f, get(i, ""))
		for giveUp := time.Now().Add(patience); cursor == ""; cursor = next(f, get(i, "")) { // some records are written beside the request
			if time.Now().After(giveUp) {
				f.Fatalf("%s has no second page", lists[i].path)
			}
		}
		f.Add(cursor)
		f.Add(cursor + "=")
		f.Add(cursor[1:])
	}
	for _, text := range []string{"", "_", "_x", "0_", "-1_x", "9999999999999_zzz", "99999999999999999999_x", "1e3_x", "MTIz", "\x00", "*", "{p07}", "../x", "a\r\nb"} {
		f.Add(text)
		f.Add(base64.RawURLEncoding.EncodeToString([]byte(text)))
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		for i := range lists {
			w := get(i, cursor)
			switch w.Code {
			case 200:
				if again := next(t, w); again != "" && get(i, again).Code != 200 {
					t.Errorf("%s%q leads to the cursor %q, which is refused", lists[i].path, cursor, again)
				}
			case 400:
				if p := isProblem(t, w); p.Code != relay.CodeInvalidRequest || p.Field != "cursor" {
					t.Errorf("%+v", p)
				}
			default:
				t.Errorf("%s%q: %d %s", lists[i].path, cursor, w.Code, w.Body)
			}
		}
	})
}

// FuzzProblem: whatever an error says, its answer is one well-formed problem, and
// one that is not meant for callers tells them nothing.
func FuzzProblem(f *testing.F) {
	b := quietBed(f)
	const code = "invalid_request"
	f.Add("req-1", code, "limit", "It must be a number.", "disk on fire")
	f.Add("a\r\nSet-Cookie: x=1", "already_decided", "\x00\x1b[31m\u2028", "</script>\"\\", "\xff\xfe")
	f.Add(strings.Repeat("x", 65), "no such code", "", "x", "")
	var fault error
	b.server.publicRoutes.GET("/fault", b.server.do(func(*gin.Context) error { return fault }))
	get := func(id string, err error) *httptest.ResponseRecorder {
		fault = err
		return serve(b.server.Public(), "GET", "/fault", "", http.Header{requestIDHeader: {id}})
	}
	f.Fuzz(func(t *testing.T, id, code, field, detail, text string) {
		if detail == "" {
			detail = "x" // ours are never empty
		}
		for _, err := range []error{
			&relay.Refusal{Code: relay.Code(code), Field: field, Detail: detail},
			fmt.Errorf("%s: %w", text, relay.Invalid(field, detail)),
			fmt.Errorf("%s: %w", text, &push.InvalidError{Field: field, Problem: detail}),
		} {
			w := get(id, err)
			p := isProblem(t, w)
			if w.Header().Get("Set-Cookie") != "" || p.RequestID != id && validRequestID(id) {
				t.Errorf("%v %+v", w.Header(), p)
			}
			if want, known := statuses[refusal(err).Code]; known && p.Status != want {
				t.Errorf("%v got %d", err, p.Status)
			}
		}
		opaque := isProblem(t, get("req", errors.New(text)))
		if opaque.Status != 500 || opaque.Detail != errInternal.Detail || opaque.Field != "" {
			t.Errorf("%+v", opaque)
		}
		for _, err := range []error{crypto.ErrSignature, crypto.ErrMalformed, crypto.ErrToken} {
			if got, want := isProblem(t, get("req", fmt.Errorf("%s: %w", text, err))), isProblem(t, get("req", err)); got != want {
				t.Errorf("%+v differs from %+v", got, want)
			}
		}
	})
}

// FuzzSubscription: whatever a browser sends, what is stored is an endpoint that
// the policy lets us push to.
func FuzzSubscription(f *testing.F) {
	b := quietBed(f)
	// Activation codes are pushed to nobody here.
	stop := make(chan struct{})
	f.Cleanup(func() { close(stop) })
	go func() {
		for {
			select {
			case <-b.pushes:
			case <-stop:
				return
			}
		}
	}()
	for _, endpoint := range []string{
		"https://fcm.googleapis.com/fcm/send/x", "https://FCM.googleapis.com:443/x", "https://web.push.apple.com/Q", "http://fcm.googleapis.com/x",
		"https://fcm.googleapis.com.evil.com/x", "https://evil.com/fcm.googleapis.com", "https://fcm.googleapis.com@evil.com/", "https://fcm.googleapis.com\\@evil.com/",
		"https://127.0.0.1/x", "https://[::1]/", "https://.push.apple.com/", "//fcm.googleapis.com/x", "https://a%2epush.apple.com/", "https://fcm.googleapis.com./",
	} {
		f.Add([]byte(asJSON(f, subscription(f, endpoint))))
	}
	good := asJSON(f, subscription(f, "https://fcm.googleapis.com/fcm/send/x"))
	f.Add([]byte(strings.Replace(good, `"endpoint"`, `"label":"phone","lang":"de","ENDPOINT":"https://evil.com/","endpoint"`, 1)))
	f.Add([]byte(strings.Replace(good, `"keys":{`, `"keys":{"auth":"x"},"Keys":{`, 1)))
	f.Add([]byte(strings.Replace(good, `"expirationTime":null`, `"expirationTime":1e999,"label":"\u202e\u0000"`, 1)))
	for range 6 { // one more than an endpoint is owed activation codes for at a time
		f.Add([]byte(asJSON(f, subscription(f, "https://fcm.googleapis.com/fcm/send/x"))))
	}
	f.Add([]byte(`{"endpoint":1}`))
	f.Add([]byte(`[]`))
	f.Add([]byte(``))
	f.Add([]byte(strings.Repeat(`{"keys":`, 1000)))
	header := http.Header{"Authorization": {"Bearer " + b.token(jwt.MapClaims{"exp": 4102444800})}}
	f.Fuzz(func(t *testing.T, body []byte) {
		b.clock.Advance(10 * time.Minute) // as long as the pushes about one endpoint, or to one user, are counted
		w := serve(b.server.Public(), "POST", "/v1/push/subscriptions", string(body), header.Clone())
		switch w.Code {
		case 200, 201:
		case 400, 413:
			isProblem(t, w)
			return
		default:
			t.Fatalf("%q: %d %s", body, w.Code, w.Body)
		}
		var view subscriptionView
		must(t, json.Unmarshal(w.Body.Bytes(), &view))
		all, err := b.service.Subscriptions(t.Context(), user12345)
		must(t, err)
		i := slices.IndexFunc(all, func(s relay.Subscription) bool { return s.ID == view.ID })
		if i < 0 {
			t.Fatalf("%s is not stored", view.ID)
		}
		stored := all[i].Push
		if again, err := b.server.policy.Parse(stored.Endpoint, stored.P256dh, stored.Auth); err != nil || again != stored {
			t.Errorf("%+v is stored and against the policy: %v", stored, err)
		}
		u, err := url.Parse(stored.Endpoint)
		must(t, err)
		known := slices.Contains([]string{"fcm.googleapis.com", "jmt17.google.com"}, u.Host)
		for _, suffix := range []string{".push.services.mozilla.com", ".notify.windows.com", ".push.apple.com"} {
			known = known || strings.HasSuffix(u.Host, suffix)
		}
		if u.Scheme != "https" || u.User != nil || !known {
			t.Errorf("%q is stored", stored.Endpoint)
		}
	})
}
