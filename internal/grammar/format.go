package grammar

import (
	"slices"
	"strings"
)

// Pieces of formats.
const (
	hour24   = `([01][0-9]|2[0-3])`
	sixty    = `[0-5][0-9]`
	fullTime = hour24 + `:` + sixty + `:` + sixty + `(\.[0-9]{1,9})?(Z|[+-]` + hour24 + `:` + sixty + `)`
	leapYear = `([0-9][0-9](0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)`
	fullDate = `([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))|` + leapYear + `-02-29)`
	octet    = `(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])`
	label    = `[a-zA-Z0-9]([a-zA-Z0-9-]{0,28}[a-zA-Z0-9])?`
	host     = label + `(\.` + label + `){0,6}`
	uriChar  = `[a-zA-Z0-9._~!$&'()*+,;=:@-]`
	group    = `[0-9a-fA-F]{1,4}`
	periods  = `([0-9]{1,6}D|[0-9]{1,6}W|[0-9]{1,6}Y([0-9]{1,6}M([0-9]{1,6}D)?)?|[0-9]{1,6}M([0-9]{1,6}D)?)`
	times    = `T([0-9]{1,6}H([0-9]{1,6}M([0-9]{1,6}S)?)?|[0-9]{1,6}M([0-9]{1,6}S)?|[0-9]{1,6}S)`
)

// formats are the string formats, each as an expression whose texts are all valid; some valid ones are not among them: leap seconds, quoted local
// parts of mail addresses, names longer than seven labels of 30 characters, IPv6 addresses with a dotted quad, and URIs other than
// scheme://host/path?query#fragment. (RFC 3339, 5321, 1123, 4122, 4291, 3986; ISO 8601 as in RFC 3339, appendix A.)
var formats = map[string]string{
	"date":      fullDate,
	"time":      fullTime,
	"date-time": fullDate + `T` + fullTime,
	"duration":  `P(` + periods + `|([0-9]{1,6}Y([0-9]{1,6}M([0-9]{1,6}D)?)?|[0-9]{1,6}M([0-9]{1,6}D)?|[0-9]{1,6}D)?` + times + `)`,
	"uuid":      `[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`,
	"email":     "[a-zA-Z0-9_+-]{1,20}(\\.[a-zA-Z0-9_+-]{1,20}){0,2}@" + label + `(\.` + label + `){1,4}`,
	"hostname":  host,
	"ipv4":      octet + `(\.` + octet + `){3}`,
	"ipv6":      `((` + group + `:){7}` + group + `|::|(` + group + `(:` + group + `){0,2})::(` + group + `(:` + group + `){0,2})?|::` + group + `(:` + group + `){0,5})`,
	"uri":       `[a-zA-Z][a-zA-Z0-9+.-]{0,15}://` + host + `(:[0-9]{1,4})?(/` + uriChar + `*)*(\?` + uriChar + `*)?(#` + uriChar + `*)?`,
}

func formatNames() string {
	var names []string
	for n := range formats {
		names = append(names, n)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
