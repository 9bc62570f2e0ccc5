package mappers

import "strings"

// Currency gives the code of ISO 4217 for a currency's three letters in any case, and how
// many digits its minor unit has. It reports false for what is no currency of today.
func Currency(name string) (code string, digits int32, ok bool) {
	code = strings.ToUpper(strings.TrimSpace(name))
	if len(code) != 3 {
		return "", 0, false
	}
	for digits, codes := range currencies {
		for c := range strings.FieldsSeq(codes) {
			if c == code {
				return code, int32(digits), true
			}
		}
	}
	return "", 0, false
}

// currencies by the digits of their minor unit. Some that were replaced lately are among
// them, since bodies of last year are mapped anew.
var currencies = []string{
	0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
	2: `AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY COP
		COU CRC CUC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HRK HTG HUF IDR ILS INR IRR
		JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK
		NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SLL SOS SRD SSP STN SVC SYP SZL THB TJS TMT
		TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG ZWL`,
	3: "BHD IQD JOD KWD LYD OMR TND",
	4: "CLF UYW",
}
