package forward

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestRedaction(t *testing.T) {
	t.Parallel()
	target := Target{Name: "core", URL: "https://core.example/?token=urlcanary", Secrets: []string{"whsec_Y2FuYXJ5"},
		Headers: map[string]string{"Authorization": "headercanary"}}
	api := confirmAPI(t, "https://api.issuer.example")
	api.Lock.Body["key"] = "bodycanary"
	d := downstream(t, func(t *Target) { t.Headers = target.Headers }, target.URL)
	i := issuer(t, api.BaseURL, func(a *IssuerAPI) { a.Lock = api.Lock })
	for _, v := range []any{target, &target, api, &api, *api.Lock, api.Lock, d, *d, i, *i} {
		encoded, err := json.Marshal(map[string]any{"v": v})
		if err != nil {
			t.Errorf("%T: %v", v, err)
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		for _, shown := range []string{
			fmt.Sprint(v), fmt.Sprintf("%v", v), fmt.Sprintf("%+v", v), fmt.Sprintf("%#v", v), fmt.Sprintf("%s", v),
			fmt.Sprintf("%x", v), fmt.Sprintf("%d", v), fmt.Sprintf("%v", []any{v}), string(encoded), log.String(),
		} {
			if !strings.Contains(shown, redactedText) || strings.Contains(shown, "canary") || strings.Contains(shown, "Y2FuYXJ5") {
				t.Errorf("%T shows as %s", v, shown)
			}
		}
	}
}
