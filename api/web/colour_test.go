package web

import (
	"math"
	"testing"
)

func mustColour(t *testing.T, s string) colour {
	t.Helper()
	c, err := parseColour(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParseColour(t *testing.T) {
	t.Parallel()
	if c := mustColour(t, "#0B6a4b"); c != (colour{0x0b, 0x6a, 0x4b}) || c.String() != "#0b6a4b" {
		t.Errorf("%+v %s", c, c)
	}
	for _, bad := range []string{"", "#", "0b6a4b", "#fff", "#0b6a4bff", "#0b6a4g", " #0b6a4b", "#0b6a4b\n", "red", "#+b6a4b"} {
		if c, err := parseColour(bad); err == nil {
			t.Errorf("%q became %s", bad, c)
		}
	}
}

// TestContrast: the values are those that other calculators give.
func TestContrast(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want float64
	}{
		{"#000000", "#ffffff", 21}, {"#ffffff", "#ffffff", 1}, {"#777777", "#ffffff", 4.48}, {"#767676", "#ffffff", 4.54},
		{"#ff0000", "#ffffff", 4.00}, {"#0000ff", "#ffffff", 8.59}, {"#ffff00", "#000000", 19.56},
	} {
		a, b := mustColour(t, c.a), mustColour(t, c.b)
		if got := contrast(a, b); math.Abs(got-c.want) > 0.01 || got != contrast(b, a) {
			t.Errorf("%s on %s: %.2f, want %.2f", c.a, c.b, got, c.want)
		}
	}
}

// TestAccents: whatever an operator chooses, the text on a button can be read,
// pressed or not, and so can the accent as text on the theme's own grounds.
func TestAccents(t *testing.T) {
	t.Parallel()
	look, err := themeOf([]byte(appFiles(t)["theme.css"]))
	if err != nil {
		t.Fatal(err)
	}
	var all []colour
	for _, s := range []string{
		"#000000", "#ffffff", "#ffff00", "#ffcc00", "#777777", "#767676", "#808080", "#757575", "#0b6a4b", "#3ecf95", "#e4002b", "#0033a0",
		"#ff6600", "#00ffff", "#ff00ff", "#7f7f00", "#010101", "#fefefe", look.light.card.String(), look.dark.card.String(),
	} {
		all = append(all, mustColour(t, s))
	}
	for r := 0; r < 256; r += 25 {
		for g := 0; g < 256; g += 25 {
			for b := 0; b < 256; b += 25 {
				all = append(all, colour{uint8(r), uint8(g), uint8(b)})
			}
		}
	}
	for _, accent := range all {
		for name, s := range map[string]struct {
			pole   colour
			ground grounds
		}{"light": {black, look.light}, "dark": {white, look.dark}} {
			a := accentsOn(accent, s.pole, s.ground.card, s.ground.page)
			if a.accent != accent || a.on != black && a.on != white {
				t.Errorf("%s, %s: %+v", accent, name, a)
			}
			for what, got := range map[string]float64{
				"text on the accent": contrast(a.on, a.accent), "text when pressed": contrast(a.on, a.press),
				"ink on a card": contrast(a.ink, s.ground.card), "ink on the page": contrast(a.ink, s.ground.page),
			} {
				if got < 4.5 {
					t.Errorf("%s, %s: %s has %.2f", accent, name, what, got)
				}
			}
			if contrast(a.press, a.accent) < 1.1 {
				t.Errorf("%s: pressed is %s, which cannot be told from it", accent, a.press)
			}
			if legibleOn(accent, []colour{s.ground.card, s.ground.page}) && a.ink != accent {
				t.Errorf("%s, %s: legible as it is, and became %s", accent, name, a.ink)
			}
		}
	}
}

func TestThemeWithoutItsColours(t *testing.T) {
	t.Parallel()
	const both = ":root{--page: #ffffff; --card: #fefefe;} @media{:root{--page:#000000;--card:#010101;}}"
	look, err := themeOf([]byte(both))
	if want := (theme{grounds{white, colour{254, 254, 254}}, grounds{black, colour{1, 1, 1}}}); err != nil || look != want {
		t.Errorf("%+v, %v", look, err)
	}
	for _, css := range []string{"", ":root{--page:#ffffff;--card:#ffffff;}", both + "p{--card:#ffffff;}"} {
		if _, err := themeOf([]byte(css)); err == nil {
			t.Errorf("%q was taken", css)
		}
	}
}
