package relay

import (
	"strings"
	"testing"
)

func TestNormalizeAmount(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"50": "50", "50.00": "50.00", "100.20": "100.20", "0.00": "0.00", "0": "0", " 7.5 ": "7.5",
		"1e2": "100", "1E+2": "100", "12.50e-3": "0.01250", "007.50": "7.50", ".5": "0.5", "+5": "5", "0e50": "0", "000.00": "0.00",
		"123456789012345678901234567890": "123456789012345678901234567890",
	} {
		if got, ok := NormalizeAmount(in); !ok || got != want {
			t.Errorf("NormalizeAmount(%q) = %q, %v; want %q", in, got, ok, want)
		}
	}
	for _, in := range []string{
		"", " ", "-1", "-0.00", "1,000", "1.2.3", "1_0", "0x10", "NaN", "Infinity", "50 USD", "٥٠", "e5", ".",
		"1e31", "1e-31", "1e999999999", "1e-999999999", "1e99999999999999999999",
		"1234567890123456789012345678901", strings.Repeat("9", 100_000),
	} {
		if got, ok := NormalizeAmount(in); ok {
			t.Errorf("NormalizeAmount(%.40q) = %q; want it refused", in, got)
		}
	}
}

func TestSameAmount(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"50", "50.00", true}, {"1e2", "100.0", true}, {"0", "0.00", true}, {"100.20", "100.2", true},
		{"50", "50.01", false}, {"50", "-50", false}, {"", "", false}, {"x", "x", false}, {"50", "", false},
		{"12345678901234567890.01", "12345678901234567890.02", false},
	} {
		if got := SameAmount(tc.a, tc.b); got != tc.want {
			t.Errorf("SameAmount(%q, %q) = %v", tc.a, tc.b, got)
		}
		if got := SameAmount(tc.b, tc.a); got != tc.want {
			t.Errorf("SameAmount(%q, %q) = %v", tc.b, tc.a, got)
		}
	}
}

func TestNormalizeCurrency(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"USD": "USD", "usd": "USD", " Eur ": "EUR", "840": "USD", "978": "EUR", "036": "AUD", "36": "AUD", "8": "ALL", "344": "HKD",
		"US": "", "USDT": "", "XYZ": "", "": "", "000": "", "0840": "", "-36": "", "$": "",
	} {
		if got, ok := NormalizeCurrency(in); got != want || ok != (want != "") {
			t.Errorf("NormalizeCurrency(%q) = %q, %v; want %q", in, got, ok, want)
		}
	}
}

func TestNormalizeCountry(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"FR": "FR", "fr": "FR", "FRA": "FR", "usa": "US", "840": "US", "250": "FR", "036": "AU", "36": "AU", "4": "AF", " de ": "DE", "UK": "GB",
		"EU": "", "001": "", "419": "", "ZZ": "", "XX": "", "XK": "", "AC": "", "EZ": "", "UN": "", "SU": "", "YU": "", "AN": "", "DD": "",
		"": "", "F": "", "FRANCE": "", "999": "", "000": "", "en": "", "US-": "", "0840": "",
	} {
		if got, ok := NormalizeCountry(in); got != want || ok != (want != "") {
			t.Errorf("NormalizeCountry(%q) = %q, %v; want %q", in, got, ok, want)
		}
	}
}

// ISO 3166-1 has 249 officially assigned alpha-2 codes.
func TestAllCountries(t *testing.T) {
	t.Parallel()
	n := 0
	for a := 'A'; a <= 'Z'; a++ {
		for b := 'A'; b <= 'Z'; b++ {
			in := string(a) + string(b)
			if got, ok := NormalizeCountry(in); ok && got == in {
				n++
			}
		}
	}
	if n != 249 {
		t.Errorf("%d countries, want 249", n)
	}
}

func FuzzAmount(f *testing.F) {
	for _, s := range []string{"50", "100.20", "1e2", "-1", "1e-9", "007", ".5", "0e1", "NaN"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := NormalizeAmount(s)
		if !ok {
			return
		}
		whole, fraction, dot := strings.Cut(got, ".")
		if whole == "" || !allDigits(whole) || !allDigits(fraction) || dot != (fraction != "") || len(whole)+len(fraction) > 30 {
			t.Errorf("NormalizeAmount(%q) = %q: not a plain decimal", s, got)
		}
		if again, ok := NormalizeAmount(got); !ok || again != got {
			t.Errorf("%q becomes %q the second time", got, again)
		}
		if !SameAmount(s, got) {
			t.Errorf("%q and its normal form %q differ", s, got)
		}
	})
}
