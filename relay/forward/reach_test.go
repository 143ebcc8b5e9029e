package forward

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"approvalrelay/relay/storetest/freeport"
)

func TestReach(t *testing.T) {
	t.Parallel()
	var got []*http.Request
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r)
		w.WriteHeader(http.StatusTeapot)
	})
	plain := httptest.NewServer(handler)
	defer plain.Close()
	if status, err := Reach(t.Context(), plain.URL+"/hook?key=hush"); err != nil || status != http.StatusTeapot {
		t.Errorf("%d, %v", status, err)
	}
	if len(got) != 1 || got[0].Method != http.MethodOptions || got[0].ContentLength != 0 || got[0].Header.Get("webhook-id") != "" {
		t.Errorf("the target got %+v", got)
	}
	private := httptest.NewUnstartedServer(handler) // whose certificate nobody has signed
	private.Config.ErrorLog = log.New(io.Discard, "", 0)
	private.StartTLS()
	defer private.Close()
	closed := freeport.Address(t)
	for url, want := range map[string]string{
		private.URL + "/hook?key=hush":              "TLS: ",
		"http://" + closed + "/?key=hush":           "connection refused",
		"http://no-such-host.invalid/hook?key=hush": "DNS: ",
		"http://" + closed + "/%zz?key=hush":        "not a URL",
	} {
		if _, err := Reach(t.Context(), url); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
}
