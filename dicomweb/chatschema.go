package dicomweb

import "math"

// What the OpenAPI document says about bodies of conversations. The handlers take exactly this; what a schema cannot say (pictures that are
// damaged, conversations longer than the model's context) is answered 400.

// jsonBodies are the schemas of JSON bodies by path; other routes take bytes.
func (s *server) jsonBodies() map[string]object {
	if s.Chat == nil {
		return nil
	}
	return map[string]object{chatPath: s.chatSchema()}
}

// jsonAnswers are the schemas of JSON answers by path; other routes say no more than that it is JSON.
func jsonAnswers(path string) object {
	switch path {
	case chatPath:
		return answerSchema
	case modelsPath:
		return object{"type": "object", "required": []string{"object", "data"}, "properties": object{
			"object": object{"const": "list"}, "data": object{"type": "array", "items": modelSchema}}}
	case modelPath:
		return modelSchema
	case conversationsPath:
		return object{"type": "object", "required": []string{"schema", "study_instance_uid", "notice", "conversations"},
			"properties": object{"conversations": object{"type": "array", "items": object{"type": "object", "required": []string{"id", "author", "started", "messages"}}}}}
	}
	return object{"type": []string{"object", "array"}}
}

var modelSchema = object{"type": "object", "required": []string{"id", "object", "created", "owned_by", "chatxray"},
	"properties": object{"id": object{"type": "string"}, "object": object{"const": "model"}, "created": object{"type": "integer"}, "owned_by": object{"type": "string"},
		"chatxray": object{"type": "object", "required": []string{"notice", "version", "digest", "languages", "context", "images", "intended_use"}}}}

var answerSchema = object{"type": "object", "required": []string{"id", "object", "created", "model", "choices", "usage", "chatxray"}, "properties": object{
	"object": object{"const": "chat.completion"},
	"choices": object{"type": "array", "minItems": 1, "maxItems": 1, "items": object{"type": "object", "required": []string{"index", "message", "finish_reason"}, "properties": object{
		"message":       object{"type": "object", "required": []string{"role", "content"}, "properties": object{"role": object{"const": "assistant"}, "content": object{"type": "string"}}},
		"finish_reason": object{"enum": []string{"stop", "length"}}}}},
	"usage": object{"type": "object", "required": []string{"prompt_tokens", "completion_tokens", "total_tokens"}},
	"chatxray": object{"type": "object", "required": []string{"draft", "notice", "model", "seed"}, "properties": object{
		"draft": object{"const": true},
		"boxes": object{"type": "array", "items": object{"type": "object", "required": []string{"image", "label", "x0", "y0", "x1", "y1"}}}}},
}}

// faultSchema is an error of OpenAI's interface.
var faultSchema = object{"type": "object", "required": []string{"error"}, "properties": object{"error": object{"type": "object",
	"required": []string{"message", "type", "param", "code"}, "properties": object{"message": object{"type": "string"}, "type": object{"type": "string"},
		"param": object{"type": []string{"string", "null"}}, "code": object{"type": []string{"string", "null"}}}}}}

// orNull is a schema that admits null, which is as good as nothing.
func orNull(o object) object { return object{"anyOf": []object{o, {"type": "null"}}} }

func closedObject(required []string, properties object) object {
	return object{"type": "object", "required": required, "properties": properties, "additionalProperties": false}
}

func (s *server) chatSchema() object {
	text := object{"type": "string"}
	flag := object{"type": "boolean"}
	number := func(least, most float64) object { return object{"type": "number", "minimum": least, "maximum": most} }
	integer := func(least, most int64) object { return object{"type": "integer", "minimum": least, "maximum": most} }
	image := closedObject([]string{"type", "image_url"}, object{"type": object{"const": "image_url"}, "image_url": closedObject([]string{"url"}, object{
		"url": object{"type": "string", "pattern": `^dicom:[0-9]+(\.[0-9]+)*(/[0-9]+(\.[0-9]+)*){0,2}$|^data:image/(png|jpeg|jpg);base64,[A-Za-z0-9+/]+=*$`, "minLength": 7,
			"description": "dicom:STUDY, dicom:STUDY/SERIES or dicom:STUDY/SERIES/INSTANCE of what is kept here, or a data URL of a PNG or JPEG file"},
		"detail": orNull(text)})})
	part := closedObject([]string{"type", "text"}, object{"type": object{"const": "text"}, "text": text})
	parts := func(kinds ...object) object {
		return object{"anyOf": []object{text, {"type": "array", "minItems": 1, "maxItems": maxPieces, "items": object{"anyOf": kinds}}}}
	}
	said := func(roles []string, content object, more object) object {
		p := object{"role": object{"enum": roles}, "content": content, "name": orNull(text)}
		for k, v := range more {
			p[k] = v
		}
		return closedObject([]string{"role", "content"}, p)
	}
	nothing := orNull(object{"const": []any{}})
	message := object{"anyOf": []object{
		said([]string{"user"}, parts(part, image), nil),
		said([]string{"system", "developer"}, parts(part), nil),
		said([]string{"assistant"}, parts(part), object{"refusal": object{"type": "null"}, "audio": object{"type": "null"}, "function_call": object{"type": "null"}, "tool_calls": nothing, "annotations": nothing}),
	}}
	format := object{"anyOf": []object{
		closedObject([]string{"type"}, object{"type": object{"enum": []string{"text", "json_object"}}}),
		closedObject([]string{"type", "json_schema"}, object{"type": object{"const": "json_schema"}, "json_schema": closedObject([]string{"schema"}, object{
			"schema": object{"type": []string{"object", "boolean"}, "description": "JSON Schema, as far as docs/generation.md says"}, "name": orNull(text), "description": orNull(text), "strict": orNull(flag)})}),
	}}
	properties := object{
		"model":    object{"enum": s.chatNames()},
		"messages": object{"type": "array", "minItems": 1, "maxItems": maxMessages, "items": message, "description": "The last is the user's; system messages stand in front; exactly one image in all"},
	}
	for key, schema := range map[string]object{
		"stream":                flag,
		"stream_options":        closedObject(nil, object{"include_usage": orNull(flag), "include_obfuscation": orNull(flag)}),
		"max_tokens":            integer(1, maxAsked),
		"max_completion_tokens": integer(1, maxAsked),
		"temperature":           number(0, 2),
		"top_p":                 number(0, 1),
		"min_p":                 number(0, 1),
		"repetition_penalty":    number(0.1, 2),
		"top_k":                 integer(0, maxAsked),
		"seed":                  integer(math.MinInt64, math.MaxInt64),
		"stop": {"anyOf": []object{{"type": "string", "minLength": 1, "maxLength": 1024},
			{"type": "array", "maxItems": 16, "items": object{"type": "string", "minLength": 1, "maxLength": 1024}}}},
		"logprobs":          flag,
		"top_logprobs":      integer(0, 20),
		"evidence":          flag,
		"language":          {"enum": s.Chat.Card().Languages},
		"timeout":           {"type": "number", "minimum": 0.001, "maximum": mostSeconds},
		"response_format":   format,
		"user":              text,
		"safety_identifier": text,
		"prompt_cache_key":  text,
		"service_tier":      text,
		"store":             flag,
		"metadata":          {"type": "object", "additionalProperties": text},
		"n":                 {"const": 1},
		"presence_penalty":  {"const": 0},
		"frequency_penalty": {"const": 0},
		"logit_bias":        {"const": object{}},
		"tools":             {"const": []any{}},
		"tool_choice":       {"enum": []string{"none", "auto"}},
		"modalities":        {"const": []string{"text"}},
	} {
		properties[key] = orNull(schema)
	}
	o := closedObject([]string{"model", "messages"}, properties)
	o["examples"] = []object{{"model": s.Chat.Card().Ref.Name, "max_tokens": 16, "messages": []object{{"role": "user", "content": []object{
		{"type": "image_url", "image_url": object{"url": "dicom:1.2.3"}}, {"type": "text", "text": "Is there a pleural effusion?"}}}}}}
	return o
}
