package configs

import (
	"bytes"
	"errors"
	"image"
	"image/png"
	"os"
	"strings"
	"testing"
)

const smallSVG = `<?xml version="1.0"?><!-- a logo --><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><path d="M0 0h1"/></svg>`

func smallPNG(t *testing.T) string {
	t.Helper()
	var out bytes.Buffer
	if err := png.Encode(&out, image.NewGray(image.Rect(0, 0, 4, 4))); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestApp(t *testing.T) {
	t.Parallel()
	files := map[string]string{"conf/logo": smallSVG, "/run/logo.txt": smallPNG(t)}
	app := parse(t, minimal+`
app:
  name: "Bankhaus Müller & Söhne 银行"
  accent: "#FFcc00"
  logo_file: logo
  support_url: "mailto:help@bank.example?subject=App"
  login_url: "https://bank.example/login?to=app"
`, nil, files).App
	if app.Name != "Bankhaus Müller & Söhne 银行" || app.Accent != "#FFcc00" || string(app.Logo) != smallSVG || app.LogoType != "image/svg+xml" ||
		app.SupportURL != "mailto:help@bank.example?subject=App" || app.LoginURL != "https://bank.example/login?to=app" {
		t.Errorf("%+v", app)
	}
	app = parse(t, minimal+"app: {name: "+strings.Repeat("é", 40)+", logo_file: /run/logo.txt}\n", nil, files).App
	if app.LogoType != "image/png" || string(app.Logo) != files["/run/logo.txt"] {
		t.Errorf("%s %d", app.LogoType, len(app.Logo))
	}
	if app := parse(t, minimal, nil, nil).App; app.Name != "Card approvals" || app.Logo != nil || app.LogoType != "" {
		t.Errorf("%+v", app)
	}
	for _, line := range []string{
		"support_url: 'https://bank.example/help?a=b#c'", `support_url: "tel:+44-20-7946-0000"`, `support_url: "tel:116116"`,
		"login_url: 'http://localhost:3000/login'", "login_url: 'http://127.0.0.1/'", "login_url: 'http://[::1]:8080'",
	} {
		parse(t, minimal+"app: {"+line+"}\n", nil, nil)
	}
}

func TestLogoThatIsNone(t *testing.T) {
	t.Parallel()
	large := strings.Replace(smallSVG, " a logo ", strings.Repeat("x", maxLogo), 1)
	for name, c := range map[string]struct{ content, problem string }{
		"too large":      {large, "the file is too large"},
		"a cut PNG":      {smallPNG(t)[:20], "the file is neither PNG nor SVG"},
		"JPEG":           {"\xff\xd8\xff\xe0\x00\x10JFIF", "the file is neither PNG nor SVG"},
		"HTML":           {"<html><svg xmlns='http://www.w3.org/2000/svg'/></html>", "the file is neither PNG nor SVG"},
		"another svg":    {"<svg/>", "the file is neither PNG nor SVG"},
		"broken SVG":     {strings.TrimSuffix(smallSVG, "</svg>"), "the file is neither PNG nor SVG"},
		"text after SVG": {smallSVG + "<", "the file is neither PNG nor SVG"},
	} {
		_, err := Parse("relay.yaml", []byte(minimal+"app: {logo_file: logo}\n"), lookup(nil), func(path string) ([]byte, error) {
			if path != "logo" {
				return os.ReadFile(path)
			}
			return []byte(c.content), nil
		})
		var faults Faults
		if !errors.As(err, &faults) || len(faults) != 1 || faults[0].String() != "relay.yaml:4: app.logo_file: "+c.problem+"; allowed: a PNG or SVG file of at most 64 KiB" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
