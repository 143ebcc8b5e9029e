package web

import (
	"bytes"
	"encoding/json"
	"image"
	"image/png"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func pngOf(t *testing.T, width, height int) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := png.Encode(&out, image.NewGray(image.Rect(0, 0, width, height))); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func decodeFile[T any](t *testing.T, content string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(content), &v); err != nil {
		t.Fatalf("%s: %v", content, err)
	}
	return v
}

type config struct {
	Name       string   `json:"name"`
	SupportURL string   `json:"support_url"`
	LoginURL   string   `json:"login_url"`
	Origins    []string `json:"origins"`
	Logo       string   `json:"logo"`
}

func TestConfig(t *testing.T) {
	t.Parallel()
	got := servedFiles(t, Brand{})["config.json"]
	if want := `{"login_url":"","logo":"icon.svg","name":"Card approvals","origins":[],"support_url":""}` + "\n"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	b := Brand{Name: `A & B <"Bank">`, SupportURL: "mailto:help@bank.example.com", LoginURL: "https://bank.example.com/login?a=1&b=2",
		Origins: []string{"https://app.example.com"}, Logo: []byte("<svg/>"), LogoType: "image/svg+xml"}
	files := servedFiles(t, b)
	want := config{b.Name, b.SupportURL, b.LoginURL, b.Origins, "logo.svg"}
	if got := decodeFile[config](t, files["config.json"]); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if files["logo.svg"] != "<svg/>" {
		t.Errorf("logo.svg is %q", files["logo.svg"])
	}
}

func TestBrandCSS(t *testing.T) {
	t.Parallel()
	plain := servedFiles(t, Brand{})["theme.css"]
	if plain != appFiles(t)["theme.css"] {
		t.Errorf("without an accent: %s", plain)
	}
	css, follows := strings.CutPrefix(servedFiles(t, Brand{Accent: "#FFCC00"})["theme.css"], plain)
	if !follows {
		t.Fatal("the accent does not stand after the theme")
	}
	rule := `:root\{--accent:#ffcc00;--accent-press:#[0-9a-f]{6};--on-accent:#000000;--accent-ink:#[0-9a-f]{6}\}`
	if !regexp.MustCompile(`^` + rule + `@media \(prefers-color-scheme:dark\)\{` + rule + `\}\n$`).MatchString(css) {
		t.Errorf("%s", css)
	}
}

func TestBadBrands(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]Brand{
		"accent": {Accent: "red"}, "css in the accent": {Accent: "#000000;}"}, "logo": {Logo: []byte("GIF89a"), LogoType: "image/gif"},
		"logo of no type": {Logo: []byte("<svg/>")},
	} {
		if _, err := Handler(b); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

type manifest struct {
	Name    string `json:"name"`
	ID      string `json:"id"`
	Start   string `json:"start_url"`
	Scope   string `json:"scope"`
	Display string `json:"display"`
	Theme   string `json:"theme_color"`
	Ground  string `json:"background_color"`
	Icons   []icon `json:"icons"`
}

func TestManifest(t *testing.T) {
	t.Parallel()
	files := servedFiles(t, Brand{Name: "Bank"})
	m := decodeFile[manifest](t, files["manifest.webmanifest"])
	colours := regexp.MustCompile(`^#[0-9a-f]{6}$`)
	if m.Name != "Bank" || m.ID != "./" || m.Start != "./" || m.Scope != "./" || m.Display != "standalone" || !colours.MatchString(m.Theme) || m.Ground != m.Theme {
		t.Errorf("%+v", m)
	}
	purposes := map[string]bool{}
	for _, i := range m.Icons {
		purposes[i.Sizes+" "+i.Purpose] = true
		if i.Type != "image/png" {
			continue
		}
		c, err := png.DecodeConfig(strings.NewReader(files[i.Source]))
		if size, _, _ := strings.Cut(i.Sizes, "x"); err != nil || i.Sizes != size+"x"+size || c.Width != c.Height || size != map[int]string{192: "192", 512: "512"}[c.Width] {
			t.Errorf("%+v is %dx%d, %v", i, c.Width, c.Height, err)
		}
	}
	for _, want := range []string{"192x192 any", "512x512 any", "512x512 maskable"} {
		if !purposes[want] {
			t.Errorf("no icon %s", want)
		}
	}
	if c, err := png.DecodeConfig(strings.NewReader(files["icons/apple-touch-icon.png"])); err != nil || c.Width != 180 || c.Height != 180 {
		t.Errorf("apple-touch-icon is %dx%d, %v", c.Width, c.Height, err)
	}
}

// TestLogoAsIcon: only a logo that fills a square can stand for the app.
func TestLogoAsIcon(t *testing.T) {
	t.Parallel()
	own := servedFiles(t, Brand{})
	for name, c := range map[string]struct {
		logo      []byte
		mediaType string
		icon      string
	}{
		"square":    {pngOf(t, 192, 192), "image/png", "192x192"},
		"large":     {pngOf(t, 400, 400), "image/png", "400x400"},
		"small":     {pngOf(t, 191, 191), "image/png", ""},
		"oblong":    {pngOf(t, 400, 200), "image/png", ""},
		"not a PNG": {[]byte("<svg/>"), "image/svg+xml", ""},
	} {
		b := Brand{Logo: c.logo, LogoType: c.mediaType}
		files := servedFiles(t, b)
		m := decodeFile[manifest](t, files["manifest.webmanifest"])
		if c.icon == "" {
			if len(m.Icons) != 4 || files["icons/icon-192.png"] != own["icons/icon-192.png"] {
				t.Errorf("%s: %+v", name, m.Icons)
			}
			continue
		}
		if len(m.Icons) != 1 || m.Icons[0] != (icon{"logo.png", c.icon, "image/png", "any"}) {
			t.Errorf("%s: %+v", name, m.Icons)
		}
		for _, file := range []string{"logo.png", "icons/icon-192.png", "icons/apple-touch-icon.png"} {
			if files[file] != string(c.logo) {
				t.Errorf("%s: %s is not the logo", name, file)
			}
		}
	}
}
