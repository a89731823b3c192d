package dicomweb

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"
)

// object is a JSON object of the document.
type object = map[string]any

// pathParameters are what the parts of a path may be, by their names in the table.
var pathParameters = map[string]object{
	"study":    uidSchema("Study Instance UID"),
	"series":   uidSchema("Series Instance UID"),
	"instance": uidSchema("SOP Instance UID"),
	"model":    {"type": "string", "description": "Name of a model"},
	"frames":   {"type": "string", "pattern": "^[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*$", "description": "Frame numbers from 1, with commas between"},
	"path":     {"type": "string", "pattern": "^[0-9A-Fa-f]{8}(/[1-9][0-9]{0,5}/[0-9A-Fa-f]{8})*$", "description": "Tag, and for a value inside sequences item number and tag again"},
}

func uidSchema(what string) object {
	return object{"type": "string", "pattern": `^[0-9]+(\.[0-9]+)*$`, "minLength": 1, "maxLength": 64, "description": what}
}

// openPath writes a path of gin as OpenAPI does and names its parameters.
func openPath(p string) (string, []string) {
	var names []string
	parts := strings.Split(p, "/")
	for i, s := range parts {
		if s != "" && (s[0] == ':' || s[0] == '*') {
			names = append(names, s[1:])
			parts[i] = "{" + s[1:] + "}"
		}
	}
	return strings.Join(parts, "/"), names
}

// document describes the service at a URL as OpenAPI 3.1. It is made from the table, so that it names every route and no other.
func (s *server) document(base string) object {
	paths := object{}
	for _, r := range s.table() {
		p, names := openPath(r.path)
		item, _ := paths[p].(object)
		if item == nil {
			item = object{}
			paths[p] = item
		}
		item[strings.ToLower(r.method)] = s.operation(r, r.method, names)
		if r.method == http.MethodGet {
			item["head"] = s.operation(r, http.MethodHead, names)
		}
	}
	schemes, _ := s.schemes()
	return object{
		"openapi": "3.1.1",
		"info": object{"title": "ChatXRay", "version": "1", "summary": "DICOMweb service that drafts reports of chest radiographs",
			"license": object{"name": "Apache-2.0", "identifier": "Apache-2.0"}},
		"servers": []object{{"url": strings.TrimSuffix(base, Root)}},
		"paths":   paths,
		"components": object{
			"securitySchemes": schemes,
			"schemas": object{
				"Error":   object{"type": "object", "required": []string{"error"}, "properties": object{"error": object{"type": "string"}}},
				"Fault":   faultSchema,
				"Dataset": datasetSchema,
				"Results": object{"type": "array", "items": object{"$ref": "#/components/schemas/Dataset"}},
			},
			"responses": object{"Error": failed("Error", "One sentence that says what is wrong"), "Fault": failed("Fault", "What is wrong, as OpenAI's interface says it")},
		},
	}
}

// failed describes an answer that says what is wrong.
func failed(schema, about string) object {
	return object{"description": about, "content": object{"application/json": object{"schema": object{"$ref": "#/components/schemas/" + schema}}}}
}

// datasetSchema is the DICOM JSON model (PS3.18 annex F) as far as a schema says it.
var datasetSchema = object{
	"type":          "object",
	"propertyNames": object{"pattern": "^[0-9A-F]{8}$"},
	"additionalProperties": object{
		"type": "object", "required": []string{"vr"},
		"properties": object{"vr": object{"type": "string", "pattern": "^[A-Z]{2}$"}, "Value": object{"type": "array"},
			"BulkDataURI": object{"type": "string"}, "InlineBinary": object{"type": "string"}},
	},
}

// schemes are the ways to show who it is, and the alternatives that an operation names.
func (s *server) schemes() (object, []object) {
	schemes, need := object{}, []object{}
	add := func(name string, scheme object) {
		schemes[name] = scheme
		need = append(need, object{name: []string{}})
	}
	if s.Auth.Any() {
		if len(s.Auth.Tokens) > 0 || s.Auth.OIDC.Issuer != "" {
			add("bearer", object{"type": "http", "scheme": "bearer"})
		}
		if len(s.Auth.Users) > 0 || s.Auth.Htpasswd.File != "" {
			add("basic", object{"type": "http", "scheme": "basic"})
		}
		if len(s.Auth.Certificates) > 0 {
			add("certificate", object{"type": "mutualTLS"})
		}
	}
	return schemes, need
}

func (s *server) operation(r route, method string, names []string) object {
	parameters := []object{}
	for _, n := range names {
		parameters = append(parameters, object{"name": n, "in": "path", "required": true, "schema": pathParameters[n]})
	}
	for _, q := range r.query {
		schema := object(q.schema)
		if schema == nil {
			schema = object{"type": "string"}
		}
		parameters = append(parameters, object{"name": q.name, "in": q.in, "description": q.about, "schema": schema, "required": q.required})
	}
	op := object{
		"operationId": strings.ToLower(method) + operationName(r.path),
		"summary":     r.summary,
		"responses":   responses(r, method),
	}
	if len(parameters) > 0 {
		op["parameters"] = parameters
	}
	if r.role != anybody {
		op["x-role"] = r.role
		if _, need := s.schemes(); len(need) > 0 {
			op["security"] = need
		}
	}
	if len(r.in) > 0 {
		bodies := content(r.in)
		for _, b := range bodies {
			schema := s.jsonBodies()[r.path]
			if schema == nil {
				schema = object{"type": "string", "format": "binary", "minLength": 1}
			}
			b.(object)["schema"] = schema
		}
		op["requestBody"] = object{"required": true, "content": bodies}
	}
	return op
}

func operationName(p string) string {
	var b strings.Builder
	for _, f := range strings.FieldsFunc(p, func(r rune) bool { return strings.ContainsRune("/:*-.{}", r) }) {
		b.WriteString(strings.ToUpper(f[:1]) + f[1:])
	}
	return b.String()
}

// responses are the successes of a route one by one; every other answer is the sentence that says what is wrong.
func responses(r route, method string) object {
	wrong := object{"$ref": "#/components/responses/Error"}
	if strings.HasPrefix(r.path, openAIRoot) {
		wrong = object{"$ref": "#/components/responses/Fault"}
	}
	if method == http.MethodHead {
		wrong = object{"description": "As GET, without a body"}
	}
	out := object{"4XX": wrong, "5XX": wrong}
	statuses := append([]int{http.StatusOK}, r.also...)
	if len(r.out) == 0 {
		statuses = []int{http.StatusNoContent}
	}
	for _, n := range statuses {
		answer := object{"description": http.StatusText(n)}
		if len(r.out) > 0 && method != http.MethodHead {
			c := content(r.out)
			if own, ok := c["application/json"].(object); ok {
				own["schema"] = jsonAnswers(r.path)
			}
			if n >= 400 {
				maps.Copy(c, content(asJSON))
			}
			answer["content"] = c
		}
		out[strconv.Itoa(n)] = answer
	}
	return out
}

// content describes bodies. Media types that differ in their parameters only are one.
func content(types []string) object {
	out := object{}
	for _, t := range types {
		switch name := parseMediaType(t).name; name {
		case mediaJSON:
			out[name] = object{"schema": object{"anyOf": []object{{"$ref": "#/components/schemas/Dataset"}, {"$ref": "#/components/schemas/Results"}}}}
		case "application/json":
			out[name] = object{"schema": object{"type": []string{"object", "array"}}}
		case mediaXML, "application/vnd.sun.wadl+xml", "text/plain":
			out[name] = object{"schema": object{"type": "string"}}
		default:
			out[name] = object{}
		}
	}
	return out
}

// openapi answers GET /openapi.json.
func (s *server) openapi(c *gin.Context) error {
	c.JSON(http.StatusOK, s.document(s.base(c.Request)))
	return nil
}

// capabilities answers OPTIONS of the service root: WADL as PS3.18 section 8.9 has it, or the OpenAPI document where JSON is wanted.
func (s *server) capabilities(c *gin.Context) error {
	c.Header("Allow", "OPTIONS")
	for _, m := range accepted(c.Request) {
		switch {
		case m.matches("application/vnd.sun.wadl+xml"), m.matches("application/xml"):
			c.Data(http.StatusOK, "application/vnd.sun.wadl+xml", s.wadl(s.base(c.Request)))
			return nil
		case m.matches("application/json"), m.matches("application/vnd.oai.openapi+json"), m.matches(mediaJSON):
			return s.openapi(c)
		}
	}
	return fmt.Errorf("%w: capabilities come as %s", errNotAcceptable, strings.Join(asCapabilities, " or "))
}

// wadl describes the service in the Web Application Description Language (W3C submission of 31 August 2009).
func (s *server) wadl(base string) []byte {
	var b bytes.Buffer
	text := func(s string) string {
		var t bytes.Buffer
		_ = xml.EscapeText(&t, []byte(s)) // a buffer does not fail
		return t.String()
	}
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8"?>`+"\n"+`<application xmlns="http://wadl.dev.java.net/2009/02"><resources base="%s">`+"\n", text(base))
	table := slices.DeleteFunc(s.table(), func(r route) bool { return !strings.HasPrefix(r.path, Root+"/") })
	for _, r := range table {
		p, names := openPath(strings.TrimPrefix(r.path, Root+"/"))
		fmt.Fprintf(&b, `<resource path="%s">`, text(p))
		for _, n := range names {
			fmt.Fprintf(&b, `<param name="%s" style="template" required="true"/>`, n)
		}
		fmt.Fprintf(&b, `<method name="%s" id="%s"><doc>%s</doc><request>`, r.method, strings.ToLower(r.method)+operationName(r.path), text(r.summary))
		for _, q := range r.query {
			fmt.Fprintf(&b, `<param name="%s" style="%s"/>`, text(q.name), text(q.in))
		}
		for _, m := range r.in {
			fmt.Fprintf(&b, `<representation mediaType="%s"/>`, text(m))
		}
		b.WriteString(`</request>`)
		if len(r.out) == 0 {
			b.WriteString(`<response status="204"/>`)
		} else {
			b.WriteString(`<response status="200">`)
			for _, m := range r.out {
				fmt.Fprintf(&b, `<representation mediaType="%s"/>`, text(m))
			}
			b.WriteString(`</response>`)
		}
		b.WriteString("</method></resource>\n")
	}
	b.WriteString("</resources></application>\n")
	return b.Bytes()
}
