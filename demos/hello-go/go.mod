module coracle.dev/demos/hello-go

go 1.21
